"""A layer that wears a change: at a strength, in a region, or merged into its weights."""

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from refiners_core import Chain, Context, RowScale, merging_copy
from refiners_core.errors import AdapterError
from refiners_core.layers import MaskMap, MaskTokens
from refiners_lora.joint import Joint, Layout, Part, part_of
from refiners_lora.method.change import Change
from refiners_lora.method.low_rank import LowRank


class Base:
    """Holds the base layer whose weight a change reads, without being its parent.

    Args:
        layer: The base layer.
    """

    __slots__ = ("layer",)

    def __init__(self, layer: nn.Module) -> None:
        self.layer: Any = layer


class Region:
    """Multiplies changes by the mask of an adapter, averaged to the grid of each layer.

    Args:
        key: The context key of the mask, (rows, 1, height, width) in 0...1.
    """

    __slots__ = ("key", "map", "tokens")

    def __init__(self, key: str) -> None:
        self.key: Final = key
        self.map: Final = MaskMap(key)
        self.tokens: Final = MaskTokens(key)

    def __call__(self, update: Tensor, context: Context, *, has_grid: bool) -> Tensor:
        """Returns a change within the region.

        Args:
            update: The change of a layer's output.
            context: The values of the call; without a mask the change passes unchanged.
            has_grid: Whether the layer sees positions of the picture; otherwise the change is
                multiplied by the share of the picture that the mask covers.
        """
        mask: Tensor | None = context.get(self.key)
        if mask is None:
            return update
        if has_grid and update.ndim > 2:
            return (self.map if update.ndim == 4 else self.tokens).run(context, update)
        share = mask.flatten(1).mean(1)
        return update * share.view(-1, *(1 for _ in range(update.ndim - 1)))


class WithChange(Chain):
    """Adds a change to the output of a layer, if the context has its scale.

    Args:
        inner: The layer, with the edits of other adapters.
        change: The change.
        scale: The context key of the scale: a 0-d tensor, one number a row, or a `RowScale`, with
            which the change is computed for its active rows alone; without a value the layer runs
            alone.
        base: The base layer, whose weight some methods read.
        region: The region in which the change acts; None where masks do not act.
        has_grid: Whether the layer sees positions of the picture.
    """

    def __init__(
        self,
        inner: nn.Module,
        change: Change,
        scale: str,
        base: Base | None = None,
        region: Region | None = None,
        *,
        has_grid: bool = False,
    ) -> None:
        # Attributes before children: a chain without state is built faster.
        self.scale: Final = scale
        self.base_layer: Final = base
        self.region: Final = region
        self.has_grid: Final = has_grid
        self._memory_key: Final = f"{scale}/{id(self)}"
        super().__init__(base=inner, lora=change)

    def run(self, context: Context, *inputs: Any) -> Any:
        scale = context.get(self.scale)
        if isinstance(scale, RowScale):
            if not torch.compiler.is_compiling():
                # Called for each layer and token of a text, so that every call of Python counts.
                joint: Joint | bool | None = context.memory.get(self._memory_key)
                if not joint:
                    return self._run_rows(context, scale, joint is None, inputs)
                x: Tensor = inputs[0]
                if joint.linear is not None:  # pyright: ignore
                    y = F.linear(x, *joint.linear)  # pyright: ignore
                else:
                    y = self.call(joint.inner, context, x)  # pyright: ignore
                return joint.added(y, x)  # pyright: ignore
            if scale.whole is None:
                return self._run_all_rows(context, scale, inputs)
            scale = scale.whole
        inner, change = self
        return self._changed(context, change, scale, self.call(inner, context, *inputs), inputs)

    def _changed(
        self, context: Context, change: Any, scale: Any, output: Any, inputs: tuple[Any, ...]
    ) -> Any:
        """Returns the output of the layer with the change at a scale for all rows, or a tensor of
        one for each; without a scale, as it is."""
        if scale is None:
            return output
        if scale.ndim and scale.ndim < output.ndim:  # token ids have one axis less than features
            scale = scale.view(*scale.shape, *(1 for _ in range(output.ndim - scale.ndim)))
        update = self._update(change, context, scale, inputs)
        if self.region is not None:
            update = self.region(update, context, has_grid=self.has_grid)
        if type(change) is LowRank and change.is_fresh and update.dtype == output.dtype:
            return update.add_(output)  # spares the allocation of another output
        return output + update

    def _run_rows(
        self, context: Context, scale: RowScale, is_first: bool, inputs: tuple[Any, ...]
    ) -> Any:
        """Runs the layer with a change in some of the rows; the others keep all bits.

        The first time in a generation, this is where plain LoRAs are joined.
        """
        x: Tensor = inputs[0]
        if is_first:
            scale.check(len(x), self.scale)
            joint = context.memory[self._memory_key] = self._joint(context) or False
            if joint:
                return self.run(context, x)
        inner, change = self
        output: Tensor = self.call(inner, context, x)
        if scale.whole is not None:
            return self._changed(context, change, scale.whole, output, inputs)
        update = self._rows_update(
            context, change, scale.values, (x.index_select(0, scale.active),)
        )
        return output.index_add(0, scale.active, update.to(output.dtype))

    def _run_all_rows(self, context: Context, scale: RowScale, inputs: tuple[Any, ...]) -> Any:
        """Computes the change for all rows: compiled sizes do not depend on the active ones."""
        inner, change = self
        output: Tensor = self.call(inner, context, *inputs)
        changed = output + self._rows_update(context, change, scale.scales, inputs)
        is_off = (scale.scales == 0).view(-1, *(1 for _ in range(output.ndim - 1)))
        return torch.where(is_off, output, changed)

    def _rows_update(
        self, context: Context, change: Any, scales: Tensor, inputs: tuple[Any, ...]
    ) -> Tensor:
        axes = inputs[0].ndim if inputs[0].is_floating_point() else inputs[0].ndim + 1
        return self._update(change, context, scales.view(-1, *(1 for _ in range(axes - 1))), inputs)

    def _joint(self, context: Context) -> Joint | None:
        """Returns the plain LoRAs around the seat, from this one inwards; None if it is another."""
        parts: list[Part] = []
        names: list[str] = []
        layer: Any = self
        while type(layer) is WithChange and not (layer._forward_hooks or layer._forward_pre_hooks):
            scale = context.get(layer.scale)
            inner, change = layer._modules.values()
            part: Part | None = None
            if isinstance(scale, RowScale):
                part = part_of(change, scale)  # pyright: ignore[reportArgumentType]
            if part is None:
                break
            parts.append(part)
            names.append(f"{layer.scale} {len(part.down)} {part.factor}")
            layer = inner
        if not parts:
            return None
        key = f"ranks of {', '.join(names)}"
        if (layout := context.memory.get(key)) is None:
            layout = context.memory[key] = Layout(parts)
        return Joint(layer, parts, layout)

    def _update(self, change: Any, context: Context, scale: Tensor, inputs: tuple[Any, ...]) -> Any:
        given = inputs
        if self.base_layer is not None:
            layer = self.base_layer.layer
            given = (*inputs, layer.weight, layer.bias)
        if change.is_linear:
            update = self.call(change, context, *given) * scale
        else:
            update = self.call(change, context, *given, scale)
        if (offset := change.offset) is None:
            return update
        column = offset.view(-1, 1, 1) if update.ndim == 4 else offset
        return update + column * scale

    def extra_repr(self) -> str:
        return repr(self.scale)


def checked_base(layer: nn.Module, path: str, title: str) -> Base:
    """Returns the holder of a base layer whose weight a change can read.

    Raises:
        AdapterError: The layer keeps its weight in another form, such as a quantised one.
    """
    weight = getattr(layer, "weight", None)
    if isinstance(weight, Tensor) and weight.is_floating_point():
        return Base(layer)
    raise AdapterError(
        f"{title} reads the weight of {path!r}, which a {type(layer).__name__} does not keep as "
        "numbers.",
        hint="Load the model without quantisation.",
    )


def merged(
    inner: nn.Module, change: Change, strength: float, base: nn.Module, path: str, key: str
) -> nn.Module:
    """Returns a copy of a layer with a change merged into its weights.

    The parameters of the layer itself stay untouched; those that do not change are shared.

    Args:
        inner: The base layer, or the copy of another merged adapter.
        change: The change.
        strength: Its strength.
        base: The base layer, from whose weight the change is computed.
        path: The path of the layer, for messages.
        key: The key of the adapter, for messages.

    Raises:
        AdapterError: Another adapter wraps the layer inside the merged one, or the layer keeps its
            weight in another form.
    """
    twin = merging_copy(inner, base, path, key)
    pristine: Any = base
    bias = getattr(pristine, "bias", None)
    current: Any = inner
    fused = change.fused(current.weight.detach(), strength)
    changes = {} if fused is not None else dict(change.merged(pristine.weight, bias, strength))
    if (offset := change.offset) is not None:
        changes["bias"] = changes.get("bias", 0) + offset.float() * strength
    if fused is not None:
        twin._parameters["weight"] = nn.Parameter(fused, requires_grad=False)
    for name, part in changes.items():
        weight = inner._parameters.get(name)
        total = part if weight is None else part.add_(weight.detach())
        kind = pristine.weight.dtype
        twin._parameters[name] = nn.Parameter(total.to(kind), requires_grad=False)
    return twin
