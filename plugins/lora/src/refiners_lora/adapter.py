"""LoRA and its kin: changes of layers of image models and language models (arXiv:2106.09685)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from refiners_core import Adapter, Chain, Edit, Model, Seat, Selection, Source, select
from refiners_core.errors import AdapterError, WeightsError
from refiners_core.layers import CrossAttention, SelfAttention
from refiners_core.models.device import built_on
from refiners_core.models.diffusion import COND
from refiners_core.weights import write
from refiners_lora.language_name import LANGUAGE_PART, language_places
from refiners_lora.language_saved import FILE
from refiners_lora.layer_match import match_layers
from refiners_lora.layer_name import Published, places_by_name
from refiners_lora.lora_file import CONFIG, read_lora
from refiners_lora.method.change import Change
from refiners_lora.method.decomposed import Decomposed
from refiners_lora.method.low_rank import folded
from refiners_lora.method.table import build
from refiners_lora.room import cut, joined, padded, room_of
from refiners_lora.saved import published, settings, write_config
from refiners_lora.strength import alphas_of
from refiners_lora.untrained import METHODS, RANKED, begun
from refiners_lora.worn import Region, WithChange, checked_base, merged

Where = Callable[[Any], Iterable[Seat]]
"""Chooses the layers of a model that an untrained LoRA updates."""


class Lora(Adapter):
    """Adds the changes of a LoRA file, of whichever method, to layers of a model.

    It takes no condition. `Condition(scale=0.8, mask=...)` sets its strength and its region; on a
    language model, `Condition(scale=[1, 0])` its strength in each text. Several add up. Without a
    file it is an untrained LoRA, and changes nothing until `up` is trained.

    Args:
        rank: For an untrained LoRA, its rank; for `oft`, the size of its blocks.
        alpha: For an untrained LoRA, its strength before division by the rank; by default the rank.
        where: For an untrained LoRA, the layers that it updates: a function, or names of slots such
            as `unet.conv` and patterns of paths such as `*.to_q`; by default the linear layers of
            the UNet's attentions, or of the blocks of a language model.
        method: For an untrained adapter, its method: `lora`, `dora`, `loha`, `lokr`, `oft`, `ia3`,
            or `full` for the differences of whole weights.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: The rank is not a positive whole number, or the method is not known.

    Example:
        >>> Lora(rank=4, name="style").takes_condition
        False
    """

    takes_mask = True
    scales_rows = True

    def __init__(
        self,
        *,
        rank: int = 8,
        alpha: float | None = None,
        where: Where | str | Sequence[str] | None = None,
        method: str = "lora",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not isinstance(rank, int) or rank < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise AdapterError(f"a LoRA cannot have rank {rank!r}.", hint="Try Lora(rank=8).")
        if method not in METHODS:
            near = get_close_matches(method, METHODS, 1)
            raise AdapterError(
                f"{method!r} is not a method; the methods are {', '.join(METHODS)}.",
                hint=f'Try method="{near[0] if near else "lora"}".',
            )
        self._untrained = rank, alpha, places_of(where), method
        self._is_begun = False
        self._published: dict[str, Published] = {}  # by the path of the seat
        self._room: dict[str, int] | None = None  # the ranks that it is padded to, by path
        self._sizes: dict[str, int] | None = None  # the ranks without padding
        self._region = Region(self.context_key("mask"))

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
        if source is None or "weights" not in source.files:
            self._begin(model)
            return
        file = read_lora(source.files["weights"], source.files.get("config"))
        matches = match_layers(file, model)
        alphas = alphas_of(file, matches)
        self._published = {match.place.seat.path: match.place.published for match in matches}
        for (place, module), alpha in zip(matches, alphas, strict=True):
            method, tensors, seat = module.method, module.tensors, place.seat
            if method.needs_base or method.reads_base or module.title == "a DoRA":
                checked_base(seat.layer, seat.path, module.title)
            try:
                self.layer(seat, lambda m=method, s=seat, t=tensors, a=alpha: build(m, s, t, a))
            except ValueError as error:
                raise WeightsError(
                    f"{file.path.name} does not fit this {model.base}: {module.name!r} {error}.",
                    hint=f"Load the model that it was trained on{_named(file.trained_on)}.",
                ) from error
        self.requires_grad_(False)

    @torch.no_grad()
    def start(self, model: Any) -> None:
        """Sets the magnitudes of a DoRA to the norms of the base (arXiv:2402.09353, section 4)."""
        for seat in self._seats(model):
            change = self.layer(seat, _missing)
            if isinstance(change, Decomposed):
                change.begin(seat.layer.get_parameter("weight"))

    def edits(self, model: Any) -> Iterable[Edit]:
        """Adds each change to the output of its layer."""
        return self._seats(model).wrap(self._with_change, name="lora")

    def merged_edits(self, model: Any, scale: float) -> Iterable[Edit]:
        """Puts each change into a copy of its layer, inside the wraps of other adapters."""

        def copied(inner: nn.Module, seat: Seat) -> nn.Module:
            change = self.layer(seat, _missing)
            return merged(inner, change, scale, seat.layer, seat.path, self.key)

        return self._seats(model).wrap(copied, stage="inputs", name="merged")

    def encode(self, value: Any, request: Any) -> dict[str, dict[str, Tensor]]:
        """Returns the mask of the region in which it acts, in the size of the latents."""
        if request.mask is None:
            return super().encode(value, request)
        size = request.latent_height, request.latent_width
        return {self.context_key("mask"): {COND: adaptive_avg_pool2d(request.mask, size)}}

    def published(self) -> Mapping[str, Tensor]:
        """Returns the weights under published keys.

        Those of plain LoRAs are the keys that diffusers writes: `unet.<layer>.lora_A.weight` and so
        on; on a language model those of PEFT. Other methods have kohya's and LyCORIS' keys.

        Raises:
            AdapterError: The adapter changes a language model by another method than plain LoRA.
        """
        return published(self._changes())

    def saved_path(self, folder: Path, name: str) -> Path:
        """Returns a file; for a language model the file of PEFT, in a folder of that name."""
        is_of_language = any(p.part == LANGUAGE_PART for p in self._published.values())
        return folder / name / FILE if is_of_language else super().saved_path(folder, name)

    def saved_files(self, path: Path) -> Mapping[str, Path]:
        """Returns the weights, and beside PEFT's file its configuration."""
        files = {"weights": path}
        return {**files, "config": path.with_name(CONFIG)} if path.name == FILE else files

    def save(self, path: str | Path) -> None:
        """Writes the weights: a plain LoRA as diffusers does, with the alphas in the header of the
        file; other methods as LyCORIS does.

        A LoRA of a language model gets the names of PEFT, which also reads `adapter_config.json`:
        it is written beside a file `adapter_model.safetensors`.

        Raises:
            AdapterError: The adapter changes a language model by another method than plain LoRA.
            WeightsError: The file cannot be written.
        """
        changes = self._changes()
        write(published(changes), path, settings(changes))
        write_config(changes, Path(path))

    def reserve(self, *others: Adapter) -> Self:
        """Makes room for the layers and ranks of other LoRAs, and returns the adapter.

        The layers that this one lacks get updates of zeros, and factors are padded with zeros up to
        the greatest rank, each strength folded into them. Then `hotswap` with any of these edits no
        tree and compiles nothing. Called before the first generation of a compiled model, it saves
        the one compilation that the first `hotswap` with a larger one costs.

        Args:
            others: Plain LoRAs that have been on a model of this kind.

        Raises:
            AdapterError: A LoRA has not been on a model yet, or has other weights than pairs of
                factors; nothing was changed.
        """
        loras = [other for other in others if isinstance(other, Lora)]
        if len(loras) != len(others):
            return super().reserve(*[other for other in others if not isinstance(other, Lora)])
        rooms = [room_of(lora._changes_by_path(), lora.key) for lora in (self, *loras)]
        self._fill(joined(rooms), loras)
        return self

    def hotswap(self, other: Adapter) -> Self:
        """Swaps weights with another adapter, and returns itself.

        Plain LoRAs may differ in layers and ranks: both are padded with zeros, which edits the tree
        only if `other` is larger than what `reserve` made room for. Adapters of other methods have
        equal layers and shapes.

        Raises:
            AdapterError: The adapters differ in more; nothing was changed.
            PlanError: A tree that wears either adapter is running; nothing was changed.
        """
        try:
            super().hotswap(other)
        except AdapterError:
            merged_scales = self.merged_scale, other.merged_scale
            if not isinstance(other, Lora) or self is other or merged_scales != (None, None):
                raise
            rooms = [room_of(lora._changes_by_path(), lora.key) for lora in (self, other)]
            room = joined(rooms)
            self._fill(room, [other])
            other._fill(room, [self])
            super().hotswap(other)
        if isinstance(other, Lora):
            self._sizes, other._sizes = other._sizes, self._sizes
        return self

    def _fill(self, room: Mapping[str, int], others: Sequence["Lora"]) -> None:
        """Pads the updates to the layers and ranks of a room, unless they have them already."""
        if self._room == room:
            return
        known = [adapter._changes_by_path() for adapter in (self, *others)]
        places = {path: name for adapter in (*others, self)
                  for path, name in adapter._published.items()}  # fmt: skip
        sizes = self._sizes or room_of(known[0], self.key)
        filled = {path: padded(path, rank, known) for path, rank in room.items()}
        with self.taken_off() if self.is_worn else nullcontext():
            self.own_layers = nn.ModuleDict(
                {path.replace(".", "/"): change for path, change in filled.items()}
            )
            self._published = {path: places[path] for path in room}
            self._room, self._sizes = dict(room), {path: sizes.get(path, 0) for path in room}

    def _changes_by_path(self) -> dict[str, Change]:
        layers = self.own_layers._modules
        return {path: layers[path.replace(".", "/")] for path in self._published}  # pyright: ignore

    def _begin(self, model: Any) -> None:
        self._is_begun = True
        rank, alpha, where, method = self._untrained
        named = (*((place,) for place in places_by_name(model).values()),
                 *language_places(model).values())  # fmt: skip
        places = {place.seat.path: place for group in named for place in group
                  if place.seat.is_a(nn.Linear, nn.Conv2d)}  # fmt: skip
        for seat in where(model):
            place = places.get(seat.path)
            if place is None:
                raise AdapterError(
                    f"a LoRA cannot change {seat.path!r}: it is not a linear layer or convolution "
                    "with a published name.",
                    hint='Choose layers of model.slot("unet.linear"), for instance.',
                )
            self._published[seat.path] = place.published
            self.layer(seat, lambda seat=seat: _untrained(seat, method, rank, alpha, model.device))

    def _seats(self, model: Any) -> Selection:
        return select(model).where(self._is_changed).expect(len(self._published))

    def _is_changed(self, seat: Seat) -> bool:
        return seat.path in self._published

    def _with_change(self, inner: nn.Module, seat: Seat) -> WithChange:
        change: Change = self.layer(seat, _missing)
        base = checked_base(seat.layer, seat.path, change.title) if change.needs_base else None
        place = self._published[seat.path]
        region = self._region if place.part == "unet" else None
        return WithChange(inner, change, self.scale_key, base, region, has_grid=place.has_grid)

    def _changes(self) -> list[tuple[Published, Change]]:
        """Returns the changes without their padding."""
        changes = self._changes_by_path()
        if self._sizes is not None:
            sizes = self._sizes
            changes = {p: cut(c, sizes[p]) for p, c in changes.items() if sizes[p]}
        if self._is_begun:
            # So that a reader that knows no alpha, or lost it, computes the same.
            changes = {path: folded(change) for path, change in changes.items()}
        return [(self._published[path], change) for path, change in changes.items()]


def attentions(model: Any) -> Iterable[Seat]:
    """Returns the linear layers of all attentions of a UNet, or of the blocks of a decoder."""
    if "decoder.linear" in model.slots:
        return model.slot("decoder.linear")
    return model.slot("unet.linear").within(SelfAttention, CrossAttention)


def places_of(where: Where | str | Sequence[str] | None) -> Where:
    """Returns the function that chooses layers: the default, a function, or one of names."""
    if where is None:
        return attentions
    if callable(where):
        return where
    names = (where,) if isinstance(where, str) else tuple(where)

    def named(model: Any) -> Iterable[Seat]:
        slots = [name for name in names if name in model.slots]
        patterns = [name for name in names if name not in model.slots]
        chosen = {seat.path: seat for slot in slots for seat in model.slot(slot)}
        for pattern in patterns:
            matches = [seat for seat in select(model) if fnmatchcase(seat.path, pattern)]
            if not matches:
                raise AdapterError(
                    f"no layer of this {model.base} has a path like {pattern!r}, and no slot has "
                    "this name.",
                    hint=f"Slots: {', '.join(model.slots)}. Paths: refiners tree {model.base}.",
                )
            chosen |= {seat.path: seat for seat in matches}
        return chosen.values()

    return named


def _untrained(
    seat: Seat, method: str, rank: int, alpha: float | None, device: torch.device
) -> Change:
    with built_on(device):
        kind, tensors = begun(method, seat, rank)
        if kind in RANKED:
            alpha = float(rank if alpha is None else alpha)
        return build(kind, seat, tensors, alpha).requires_grad_(True)


def _named(model: str) -> str:
    return f", {model}" if model else ""


def _missing() -> nn.Module:
    raise AssertionError("updates are built in build()")
