"""Changes of layers that files name: what VeRA, LN tuning and FourierFT share."""

import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple

import torch
from torch import Tensor, nn

from refiners_core import Edit, Multiply, Seat, Source, Sum, When, merging_copy
from refiners_core.errors import WeightsError
from refiners_core.models.decoder import LanguageModel
from refiners_core.weights import Transform, stacked
from refiners_peft.peft_file import PREFIX, PeftFile
from refiners_peft.saved import Saved
from refiners_peft.virtual import language_model

HEAD: Final = "lm_head"
"""The published name of the head."""


class Share(NamedTuple):
    """A place of a model, and its share of the outputs of a published layer."""

    seat: Seat
    rows: slice


@dataclass(frozen=True, eq=False)
class Target:
    """A published layer, such as `model.layers.0.self_attn.q_proj`."""

    name: str
    inputs: int
    outputs: int
    shares: Sequence[Share]
    """The places that it is in the model, in order."""


class LayerChanges(Saved):
    """Adds the changes that a file of PEFT has to the layers that it names.

    Args:
        options: The arguments of every adapter: `weights`, `name`, `key`.
    """

    method: ClassVar[str]
    """The method, as PEFT names it."""
    slots: ClassVar[tuple[str, ...]]
    """The slots of the layers."""
    roles: ClassVar[tuple[str, ...]]
    """The tensors of a layer, of which the first must be there."""
    pattern: ClassVar[re.Pattern[str]]
    """Matches the name of a tensor."""
    shared: ClassVar[frozenset[str]] = frozenset()
    """The tensors that belong to no layer."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._names: dict[str, str] = {}  # of the published layers, by the paths of seats

    @abstractmethod
    def changes(self, file: PeftFile, layers: Mapping[Target, Mapping[str, Tensor]]) -> None:
        """Builds the layers of all places by `self.layer`.

        Args:
            file: The file.
            layers: The tensors by role of each published layer.

        Raises:
            WeightsError: Tensors are damaged, or the configuration lacks what they need.
        """

    @abstractmethod
    def merged(self, change: Any, base: nn.Module) -> Mapping[str, Tensor]:
        """Returns what is added to the parameters of a layer at scale 1, by name.

        Args:
            change: The layer that `changes` has built.
            base: The base layer.
        """

    def build(self, model: Any, source: Source | None) -> None:
        """Builds a change for each layer that the file names.

        Raises:
            AdapterError: `model` is not a language model, or no file is given.
            WeightsError: The file is of another kind, is damaged, or is for another model.
        """
        model = language_model(model, self.key)
        file = self.read(source, model, self.method)
        layers = self._layers(model, file)
        self.changes(file, layers)
        self._names = {share.seat.path: target.name for target in layers for share in target.shares}
        self.requires_grad_(False)

    def edits(self, model: Any) -> Iterable[Edit]:
        """Adds each change to the output of its layer."""

        def beside(inner: nn.Module, seat: Seat) -> nn.Module:
            change = self.layer(seat, self.missing)
            return Sum(inner, When(self.scale_key, change, Multiply(self.scale_key)))

        return self.wrapped(model, beside, name="change")

    def merged_edits(self, model: Any, scale: float) -> Iterable[Edit]:
        """Puts each change into a copy of its layer, inside the wraps of other adapters."""

        def copied(inner: nn.Module, seat: Seat) -> nn.Module:
            twin: Any = merging_copy(inner, seat.layer, seat.path, self.key)
            for name, change in self.merged(self.layer(seat, self.missing), seat.layer).items():
                weight: Tensor = twin._parameters[name].detach()
                total = weight + (change * scale).to(weight.dtype)
                twin._parameters[name] = nn.Parameter(total, requires_grad=False)
            return twin

        return self.wrapped(model, copied, stage="inputs", name="merged")

    def wrapped(self, model: Any, make: Callable[..., nn.Module], **how: Any) -> tuple[Edit, ...]:
        """Returns the edits that wrap the layers that are changed.

        Args:
            model: The model.
            make: Makes the layer of a seat.
            how: The other arguments of `Selection.wrap`.
        """
        seats = (model.slot(slot).where(self._is_changed) for slot in self.slots)
        return tuple([edit for places in seats for edit in places.wrap(make, **how)])

    def published(self) -> Mapping[str, Tensor]:
        """Returns the tensors under the names that PEFT gives them."""
        layers = self.own_layers._modules
        changes = {name: layers[path.replace(".", "/")] for path, name in self._names.items()}
        return {
            f"{PREFIX}{name}.{role}": tensor.detach()
            for name, change in changes.items()
            for role, tensor in self.stored(change).items()
        }

    @abstractmethod
    def stored(self, change: Any) -> Mapping[str, Tensor]:
        """Returns the tensors of a published layer, by the role that PEFT gives them.

        Args:
            change: The layer that `changes` has built for one of its places.
        """

    def _is_changed(self, seat: Seat) -> bool:
        return seat.path in self._names

    def _layers(self, model: LanguageModel, file: PeftFile) -> dict[Target, Mapping[str, Tensor]]:
        targets = dict(self._targets(model))
        current = model.layouts["decoder"].current
        layers: dict[Target, Mapping[str, Tensor]] = {}
        for name, tensors in file.by_layer(self.pattern, self.shared).items():
            if missing := [role for role in self.roles if role not in tensors]:
                raise WeightsError(
                    f"{file.name} is incomplete: {name!r} has {', '.join(tensors)}, but no "
                    f"{missing[0]}.",
                    hint="Fetch it again.",
                )
            target = targets.get(current(name))
            if target is None:
                raise self._misplaced(model, file, name, [*targets])
            layers[target] = tensors
        if not layers:
            raise WeightsError(
                f"{file.name} has no tensor of a layer, so it would change nothing.",
                hint="Fetch it again, or save it again from PEFT.",
            )
        return layers

    def _targets(self, model: LanguageModel) -> Iterable[tuple[str, Target]]:
        for name, places in self._places(model):
            shapes = [_ends(seat) for seat, _ in places]
            outputs = sum(size for _, size in shapes)
            rows = [
                stacked(how.share, how.shares, sizes=how.sizes).part(torch.arange(outputs))
                for _, how in places
            ]
            shares = [
                Share(seat, slice(int(part[0]), int(part[-1]) + 1))
                for (seat, _), part in zip(places, rows, strict=True)
                if part is not None
            ]
            yield name, Target(name, shapes[0][0], outputs, tuple(shares))

    def _places(
        self, model: LanguageModel
    ) -> Iterable[tuple[str, Sequence[tuple[Seat, Transform]]]]:
        for slot in self.slots:
            for name, places in model.published_places(slot)["decoder"].items():
                # A tied head is published as the embedding, but PEFT names the head.
                yield (HEAD if slot == "decoder.head" else name), places

    def _misplaced(
        self, model: LanguageModel, file: PeftFile, name: str, names: Sequence[str]
    ) -> WeightsError:
        number = re.search(r"\.(\d+)\.", f".{name}.")
        layers = model.facts["layers"]
        if number is not None and int(number[1]) >= layers:
            there = f"it has {layers} layers"
        else:
            same = [other for other in names if number is None or f".{number[1]}." in other]
            more = f" and {len(same) - 2} more" if len(same) > 2 else ""
            there = f"it has {', '.join(same[:2])}{more}"
        return WeightsError(
            f"{file.name} changes {name!r}, which this {model.base} does not have among its "
            f"{self.slots[0].rpartition('.')[2]} layers: {there}.{file.origin}",
            hint="Give an adapter that was trained on this model.",
        )


def check_length(file: PeftFile, target: Target, role: str, tensor: Tensor, length: int) -> None:
    """Raises if a vector does not have one number for each feature.

    Raises:
        WeightsError: The vector has another shape.
    """
    if tuple(tensor.shape) != (length,):
        shown = str(len(tensor)) if tensor.ndim == 1 else f"{list(tensor.shape)}"
        raise WeightsError(
            f"{file.name} has {shown} numbers as {role} of {target.name!r}; the layer of this "
            f"model needs {length}.{file.origin}",
            hint="Give an adapter that was trained on this model.",
        )


def _ends(seat: Seat) -> tuple[int, int]:
    """Returns the numbers of features that a layer takes and returns."""
    facts = seat.facts
    if "in_features" in facts:
        return facts["in_features"], facts["out_features"]
    weight: Any = seat.layer.weight  # of a norm
    return len(weight), len(weight)
