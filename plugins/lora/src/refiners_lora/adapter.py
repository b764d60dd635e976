"""LoRA: low-rank updates beside layers of the UNet and of the text encoders (arXiv:2106.09685)."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Edit, Model, Seat, Source, select
from refiners_core.errors import AdapterError
from refiners_core.layers import CrossAttention, SelfAttention
from refiners_core.models.device import built_on
from refiners_core.weights import write
from refiners_lora.alpha import Alphas, Strength, configured
from refiners_lora.layer_match import Match, match_layers
from refiners_lora.layer_name import places_by_name
from refiners_lora.lora_file import METADATA, LoraFile, read_lora
from refiners_lora.low_rank import LowRank, WithLowRank, low_rank

Where = Callable[[Any], Iterable[Seat]]
"""Chooses the layers of a model that an untrained LoRA updates."""


class Lora(Adapter):
    """Adds the low-rank updates of a LoRA file to linear layers and convolutions.

    It takes no condition. `Condition(scale=0.8)` sets its strength, for the UNet and the text
    encoders alike. Several LoRAs add up. Without a file it is untrained, and changes nothing until
    `up` is trained.

    Args:
        rank: For an untrained LoRA, its rank.
        alpha: For an untrained LoRA, its strength before division by the rank; by default the rank.
        where: For an untrained LoRA, the layers that it updates; by default the linear layers of
            the UNet's attentions.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: The rank is not a positive whole number.

    Example:
        >>> Lora(rank=4, name="style").takes_condition
        False
    """

    def __init__(
        self,
        *,
        rank: int = 8,
        alpha: float | None = None,
        where: Where | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not isinstance(rank, int) or rank < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise AdapterError(f"a LoRA cannot have rank {rank!r}.", hint="Try Lora(rank=8).")
        self._untrained = rank, float(rank if alpha is None else alpha), where or attentions
        self._published: dict[str, tuple[str, str]] = {}  # component and name there, by seat

    def build(self, model: Chain, source: Source | None) -> None:
        """Builds an update for each layer that the file names.

        Raises:
            WeightsError: The file is not a LoRA, is damaged, or is for another base.
            AdapterError: `model` is a part of a model, or an untrained LoRA cannot change a layer.
        """
        if not isinstance(model, Model):
            raise AdapterError(
                f"a LoRA goes on a whole model, not on {type(model).__name__}.",
                hint="Try adapter.inject(model).",
            )
        if source is None:
            self._begin(model)
            return
        file = read_lora(source.files["weights"], source.files.get("config"))
        matches = match_layers(file, model)
        alphas = _alphas(file, matches)
        self._published = {match.place.seat.path: match.place[1:] for match in matches}
        for match in matches:
            self.layer(match.place.seat, lambda match=match: _loaded(match, alphas))
        self.requires_grad_(False)

    def edits(self, model: Any) -> Iterable[Edit]:
        """Adds each update to the output of its layer."""
        seats = select(model).where(self._is_changed).expect(len(self._published))
        return seats.wrap(self._with_change, name="lora")

    def published(self) -> Mapping[str, Tensor]:
        """Returns the weights under the keys that diffusers writes: `unet.<layer>.lora_A.weight`
        and so on."""
        return {
            f"{part}.{name}.lora_{half}.weight": weight
            for part, name, change in self._changes()
            for half, weight in zip("AB", (change.down.weight, change.up.weight), strict=True)
        }

    def save(self, path: str | Path) -> None:
        """Writes the weights as diffusers does, with the alphas in the header of the file."""
        parts: dict[str, dict[str, Strength]] = {}
        for part, name, change in self._changes():
            parts.setdefault(part, {})[name] = Strength(change.rank, change.alpha)
        config = {
            f"{part}.{field}": value
            for part, strengths in parts.items()
            for field, value in configured(strengths, part).items()
        }
        write(self.published(), path, {METADATA: json.dumps(config, sort_keys=True)})

    def _begin(self, model: Any) -> None:
        rank, alpha, where = self._untrained
        places = {place.seat.path: place for place in places_by_name(model).values()}
        for seat in where(model):
            place = places.get(seat.path)
            if place is None:
                raise AdapterError(
                    f"a LoRA cannot change {seat.path!r}: it is not a linear layer or convolution "
                    "with a published name.",
                    hint='Choose layers of model.slot("unet.linear"), for instance.',
                )
            self._published[seat.path] = place[1:]
            self.layer(seat, lambda seat=seat: _untrained(seat, rank, alpha, model.device))

    def _is_changed(self, seat: Seat) -> bool:
        return seat.path in self._published

    def _with_change(self, inner: nn.Module, seat: Seat) -> WithLowRank:
        return WithLowRank(inner, self.layer(seat, _missing), self.scale_key)

    def _changes(self) -> Iterable[tuple[str, str, Any]]:
        for path, (part, name) in self._published.items():
            yield part, name, self.own_layers[path.replace(".", "/")]


def attentions(model: Any) -> Iterable[Seat]:
    """Returns the linear layers of all attentions of a UNet."""
    return model.slot("unet.linear").within(SelfAttention, CrossAttention)


def _alphas(file: LoraFile, matches: Iterable[Match]) -> dict[str, Alphas]:
    """Returns the alphas that PEFT's configuration gives each component."""
    names: dict[str, list[str]] = {}
    for place, _ in matches:
        names.setdefault(place.part, []).append(place.name)
    is_of_parts = any("." in field for field in file.config)
    return {
        part: Alphas(
            {
                field.removeprefix(f"{part}."): value
                for field, value in file.config.items()
                if not is_of_parts or field.startswith(f"{part}.")
            },
            layers,
        )
        for part, layers in names.items()
    }


def _loaded(match: Match, alphas: Mapping[str, Alphas]) -> LowRank:
    (seat, part, name), module = match
    down, up = module.factors
    rank = down.shape[0]
    alpha = module.alpha
    if alpha is None:
        alpha = alphas[part].of(name, rank)
    return low_rank(seat, down, up, float(rank if alpha is None else alpha))


def _untrained(seat: Seat, rank: int, alpha: float, device: torch.device) -> LowRank:
    layer = seat.facts
    if seat.is_a(nn.Conv2d):
        ends = layer["in_channels"], layer["out_channels"]
        kernel = layer["kernel_size"]
    else:
        ends, kernel = (layer["in_features"], layer["out_features"]), ()
    with built_on(device):
        down, up = torch.empty(rank, ends[0], *kernel), torch.zeros(ends[1], rank)
        nn.init.kaiming_uniform_(down, a=5**0.5)  # as in the authors' released code
        change = low_rank(seat, down, up, alpha)
    return change.requires_grad_(True)


def _missing() -> nn.Module:
    raise AssertionError("updates are built in build()")
