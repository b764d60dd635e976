"""Worn adapters and what a generation says to them."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from refiners_core.condition import Condition
from refiners_core.errors import ConditionError, Notice
from refiners_core.models.diffusion.denoise import COND
from refiners_core.models.diffusion.request import GenerationRequest
from refiners_core.picture import to_mask
from refiners_core.surgery.adapter import Adapter

Told = Mapping[str, Mapping[str, Tensor]]
"""For each context key, a tensor per branch."""


@dataclass(frozen=True)
class AdapterCondition:
    """One adapter in one generation: what it is told, and what it makes of it."""

    adapter: Adapter
    condition: Condition
    told: Told = field(default_factory=dict[str, Mapping[str, Tensor]])

    def is_ever_active(self, steps: int) -> bool:
        """Whether there is a step at which it acts.

        Warns:
            Notice: It has a strength, but its span has no step.
        """
        condition = self.condition
        is_active = any(condition.is_active(step, steps) for step in range(steps))
        if not is_active and condition.scale != 0:
            spans = [f"{i / steps:.3g}...{(i + 1) / steps:.3g}" for i in range(steps)]
            if len(spans) > 6:
                spans[3:-2] = ["..."]
            warnings.warn(
                f"{self.adapter.key} does not act: no step lies within {condition.start:g}..."
                f"{condition.end:g}; the {steps} steps are {', '.join(spans)}.",
                Notice,
                stacklevel=6,
            )
        return is_active

    def scale(self, request: GenerationRequest) -> Tensor:
        """Returns how strongly it acts, 0-d."""
        return torch.tensor(self.condition.scale, dtype=request.dtype, device=request.device)

    def follow(self, request: GenerationRequest) -> None:
        """Moves the adapter's layers outside the tree to where the network computes now.

        They move with a model, but not with one component of it: `model.unet.to(...)` reaches only
        the layers that the UNet wears.
        """
        inside = {id(layer) for layer in request.model.modules()}
        own = self.adapter.__dict__.get("own_layers")
        for layer in self.adapter.modules():
            if id(layer) in inside or layer is own:
                continue
            weights = [*layer._parameters.values(), *layer._buffers.values()]
            if any(_is_elsewhere(weight, request) for weight in weights):
                layer._apply(partial(_moved, request=request), recurse=False)

    def encoded(self, request: GenerationRequest) -> "AdapterCondition":
        """Lets the adapter look at its value and keeps what it returns.

        Raises:
            ConditionError: The value does not suit the adapter, or what it returns is not for the
                context.
        """
        if not self.adapter.takes_condition:
            return self
        if self.condition.mask is not None:
            mask = to_mask(self.condition.mask, (request.height, request.width))
            if len(mask) != 1:
                raise ConditionError(
                    f"{self.adapter.key} acts in one place of all pictures; it is given "
                    f"{len(mask)} masks.",
                    hint="Pass one mask: Condition(value, mask=mask).",
                )
            request = replace(request, mask=mask)
        told = self.adapter.encode(self.condition.value, request)
        self._check_counts(told, request)
        return replace(self, told={key: self._branches(key, told[key], request) for key in told})

    def _check_counts(
        self, told: Mapping[str, Mapping[str, Tensor]], request: GenerationRequest
    ) -> None:
        """Refuses values that are as many as the rows which were made of them, but not as many as
        the pictures."""
        value: Any = self.condition.value
        values = value if isinstance(value, Mapping) else {"": value}
        rows = {len(rows) for each in told.values() for rows in each.values()}
        for name, item in values.items():
            many = len(item) if isinstance(item, list | tuple) or _is_batch(item) else 1
            if many not in (1, request.count) and many in rows:
                what = f" as {name}" if name else ""
                raise ConditionError(
                    f"{self.adapter.key} is given {many} values{what} for {request.count} "
                    f"picture{'s' * (request.count > 1)}.",
                    hint="Pass one for all pictures or one for each, or make as many: "
                    f"count={many}.",
                )

    def _branches(
        self, key: str, told: Mapping[str, Tensor], request: GenerationRequest
    ) -> Mapping[str, Tensor]:
        if not key.startswith(f"{self.adapter.key}."):
            raise ConditionError(
                f"{self.adapter.key} writes the context key {key!r}, which is not its own.",
                hint=f"Name it self.context_key({key.rpartition('.')[2]!r}).",
            )
        if COND not in told or any(len(value) not in (1, request.count) for value in told.values()):
            sizes = ", ".join(f"{name}: {len(value)}" for name, value in told.items()) or "none"
            raise ConditionError(
                f"{key!r} needs 1 or {request.count} rows for {COND!r}, at least; it has {sizes}.",
                hint=f'Return {{key: {{"{COND}": tensor}}}} from encode().',
            )
        return {
            name: value.to(request.device, request.dtype)
            if value.is_floating_point()
            else value.to(request.device)
            for name, value in told.items()
        }


def _is_batch(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4


def _is_elsewhere(weight: Tensor | None, request: GenerationRequest) -> bool:
    if weight is None or weight.is_meta or not weight.is_floating_point():
        return False
    return weight.dtype != request.dtype or weight.device.type != request.model.unet.device.type


def _moved(weight: Tensor, request: GenerationRequest) -> Tensor:
    return weight.to(
        request.model.unet.device, request.dtype if weight.is_floating_point() else None
    )


def guides_of(worn: Sequence[Adapter], conditions: Any) -> tuple[AdapterCondition, ...]:
    """Matches what the caller says with what the model wears, less what is left out this time.

    Raises:
        ConditionError: Something is said to nobody, nothing is said to an adapter that needs it,
            or it takes none.
    """
    said = {} if conditions is None else conditions
    if not isinstance(said, Mapping) or not all(isinstance(key, Adapter) for key in said):
        raise ConditionError(
            f"conditions map adapters to values; got {_kinds(said)}.",
            hint="Try conditions={adapter: picture} with what load_adapter returned.",
        )
    for adapter in said:
        if not any(adapter is one for one in worn):
            raise ConditionError(
                f"{adapter.key} is told something, but this model wears {_keys(worn)}.",
                hint="Put it on first: adapter.inject(model).",
            )
    guides: list[AdapterCondition] = []
    for adapter in worn:
        value = said.get(adapter) if adapter in said or adapter.takes_condition else Condition()
        if adapter.takes_condition and adapter not in said:
            raise ConditionError(
                f"{adapter.key} is worn and is told nothing.",
                hint="Pass conditions={adapter: ...}, None to leave it out this time, or eject it.",
            )
        condition = value if isinstance(value, Condition) else Condition(value)
        if value is None or (adapter.takes_condition and condition.value is None):
            continue
        _check(adapter, condition)
        guides.append(AdapterCondition(adapter, condition))
    return tuple(guides)


def acting(
    guides: Sequence[AdapterCondition], request: GenerationRequest, steps: int
) -> tuple[AdapterCondition, ...]:
    """Returns those that act at some step, each of which has agreed to the generation.

    Raises:
        ConditionError: An adapter cannot act in it.
    """
    kept = tuple(guide for guide in guides if guide.is_ever_active(steps))
    for guide in kept:
        guide.adapter.check(guide.condition.value, request)
    return kept


def _check(adapter: Adapter, condition: Condition) -> None:
    if not adapter.takes_condition and condition.value is not None:
        raise ConditionError(
            f"{adapter.key} takes no value, but is told a {type(condition.value).__name__}.",
            hint="Condition(scale=0.5) says how strongly it acts, None leaves it out this time.",
        )
    if adapter.inputs:
        _check_inputs(adapter, condition.value)
    if condition.mask is not None and not adapter.takes_mask:
        raise ConditionError(
            f"{adapter.key} acts on the whole picture: it takes no mask.", hint="Leave mask= out."
        )


def _check_inputs(adapter: Adapter, value: Any) -> None:
    names = (*adapter.inputs, *adapter.optional_inputs)
    values: Mapping[Any, Any] = value if isinstance(value, Mapping) else {}
    missing = [name for name in adapter.inputs if name not in values]
    unknown = [str(name) for name in values if name not in names]
    if not missing and not unknown:
        return
    if missing:
        given = ", ".join(map(str, values)) if value is values else type(value).__name__
        fact = f"needs {' and '.join(missing)}; it is given {given or 'nothing'}"
    else:
        fact = f"takes {' and '.join(names)}, not {' and '.join(unknown)}"
    example = ", ".join(f'"{name}": ...' for name in names)
    raise ConditionError(
        f"{adapter.key} {fact}.", hint=f"Pass conditions={{adapter: {{{example}}}}}."
    )


def _keys(worn: Sequence[Adapter]) -> str:
    return ", ".join(adapter.key for adapter in worn) or "nothing"


def _kinds(said: Any) -> str:
    if not isinstance(said, Mapping):
        return f"a {type(said).__name__}"
    return "keys of type " + ", ".join(sorted({type(key).__name__ for key in said}))
