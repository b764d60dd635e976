"""AdapterFusion: attention over what several bottleneck adapters add (arXiv:2005.00247)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn

from refiners_bottleneck.adapter import Bottleneck
from refiners_bottleneck.behind import Behind, Spot, norm_of_sum, published_names
from refiners_bottleneck.change import network_of, read_of, reads_stream, residual_of
from refiners_bottleneck.config import PLACES, BottleneckConfig
from refiners_bottleneck.fit import check_model, family_of
from refiners_bottleneck.folder import (
    FUSION_CONFIG,
    Folder,
    fusion_tensors,
    read_about,
    write_folder,
)
from refiners_bottleneck.fused import Fused, FusionConfig
from refiners_bottleneck.leaf import leaves_in
from refiners_core import Chain, Identity, Parallel, Source
from refiners_core.errors import AdapterError, Notice
from refiners_core.models.device import built_on
from refiners_core.weights import MisfitError

FORM: Final = ("is_parallel", "original_ln_before", "original_ln_after", "residual_before_ln")
"""The fields that fused adapters have in common: they decide what is read and added."""


class Fusion(Behind):
    """Adds an attention over what several bottleneck adapters would add (arXiv:2005.00247,
    section 3.2).

    Each token asks, and the outputs of the adapters answer. The scale multiplies the whole.

    Args:
        adapters: The bottleneck adapters, not worn: the fusion runs their networks itself.
        config: For an untrained fusion, `dynamic`, or `static` for one without a value matrix.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: There are fewer than two adapters, or one is not a `Bottleneck`.

    Example:
        >>> Fusion(adapters=[Bottleneck(), Bottleneck()]).config.value
        True
    """

    def __init__(
        self, *, adapters: Sequence[Any] = (), config: str = "dynamic", **options: Any
    ) -> None:
        super().__init__(**options)
        others = [a for a in adapters if not isinstance(a, Bottleneck)]
        if len(adapters) < 2 or others or len({*adapters}) < len(adapters):
            what = f"{type(others[0]).__name__}" if others else f"{len({*adapters})}"
            raise AdapterError(
                f"{self.key} fuses two or more bottleneck adapters; adapters has {what}.",
                hint='Try adapters=[refiners.load_adapter("./a"), refiners.load_adapter("./b")].',
            )
        self.config = FusionConfig.named(config)
        self.members: tuple[Bottleneck, ...] = tuple(adapters)
        self._about: dict[str, Any] = {}
        self._blocks = ""

    def build(self, model: Any, source: Source | None) -> None:
        """Builds the networks of the adapters and the attention, and loads them.

        Raises:
            AdapterError: An adapter is worn, or the adapters differ in what they read or add.
            WeightsError: The folder is for another model, or has a field that is not followed.

        Warns:
            Notice: The folder names other adapters.
        """
        members = self.members
        folder = None
        if source is not None:
            path = source.files["weights"]
            folder = Folder(path, read_about(path, source.files.get("config"), FUSION_CONFIG))
            self.config = FusionConfig.from_json(folder.about["config"], path.name)
        check_model(self.key, model, folder)
        for member in members:
            if member.is_worn:
                raise AdapterError(
                    f"{self.key} runs the networks of {member.key} itself, but it is worn.",
                    hint="Call its eject() first.",
                )
            member.inject(model).eject()  # builds its layers for this model
        if folder is not None:
            self._check_names(folder, members)
        spots = self._common_spots(members)
        width = int(model.facts["width"])
        wanted = self.config.shapes(width)
        with built_on(model.device):
            if folder is None:
                tensors = {spot: self.config.begin(width) for spot in spots}
            else:
                tensors = _loaded(folder, spots, wanted)
            self.spots = dict(
                self.put(model, spot, self._fused(model, spot, members, tensors[spot]))
                for spot in spots
            )
        self.streams = frozenset(
            spot[1] for spot in spots if reads_stream(_config(members[0], spot))
        )
        self._blocks, _ = published_names(model)
        self._about = {"hidden_size": width, "model_type": family_of(model)}

    def published(self) -> Mapping[str, Tensor]:
        """Returns the tensors of the attention under AdapterHub's names."""
        tensors: dict[str, Tensor] = {}
        for path, (layer, place) in self.spots.items():
            start = f"{self._blocks}.{layer}.{PLACES[place]}.adapter_fusion_layer.{self.key}"
            attention = self.own_layers[path].get_submodule("attention")
            for name, value in attention.named_parameters():
                tensors[f"{start}.{name}"] = value.detach()
        return tensors

    def save(self, path: str | Path) -> None:
        """Writes a folder as AdapterHub does: `model_adapter_fusion.safetensors` and
        `adapter_fusion_config.json`; the adapters are saved apart.

        Args:
            path: The folder, or the path of the file with the tensors.

        Raises:
            AdapterError: The fusion has not been on a model yet.
        """
        if not self._about:
            raise AdapterError(
                f"{self.key} was not on a model yet, so it cannot be saved.",
                hint="Call adapter.inject(model) first.",
            )
        names = [member.key for member in self.members]
        about = {"config": self.config.to_json(), "name": self.key, "adapter_names": names}
        files = ("model_adapter_fusion.safetensors", FUSION_CONFIG)
        write_folder(self.published(), {**about, **self._about}, path, files)

    def _fused(
        self,
        model: Any,
        spot: Spot,
        members: Sequence[Bottleneck],
        tensors: Mapping[str, nn.Parameter],
    ) -> Fused:
        networks = {
            f"of_{i}": Chain(**network_of(leaves_in(member.network(spot))))
            for i, member in enumerate(members)
        }
        config, norm = _config(members[-1], spot), norm_of_sum(model, spot[1])
        read = read_of(config, self.stream, norm).get("read", Identity())
        return Fused(
            read,
            Parallel(**networks),
            self.config.build(int(model.facts["width"]), tensors),
            is_parallel=config.is_parallel,
            residual=residual_of(config, norm),
            replaces=not config.original_ln_after,
            stream=self.stream,
        )

    def _common_spots(self, members: Sequence[Bottleneck]) -> list[Spot]:
        """Returns the places that all adapters share.

        Raises:
            AdapterError: An adapter acts where another does not, or reads or adds something else.
        """
        first, *rest = members
        spots = [*first.spots.values()]
        for other in rest:
            if {*other.spots.values()} != {*spots}:
                raise AdapterError(
                    f"{first.key} and {other.key} act after different layers, so {self.key} cannot "
                    "fuse them.",
                    hint="Fuse adapters of one configuration.",
                )
            for spot in spots:
                for name in FORM:
                    mine, others = (getattr(_config(a, spot), name) for a in (first, other))
                    if mine != others:
                        raise AdapterError(
                            f"{self.key} fuses adapters of one form; {name} is {mine} in "
                            f"{first.key} and {others} in {other.key}.",
                            hint="Fuse adapters of one configuration.",
                        )
        return spots

    def _check_names(self, folder: Folder, members: Sequence[Bottleneck]) -> None:
        """Compares the adapters with the names of those that the fusion was trained with.

        Raises:
            AdapterError: The fusion was trained with another number of adapters.
        """
        stated: Any = folder.about.get("adapter_names") or str(folder.about.get("name")).split(",")
        names = stated.split(",") if isinstance(stated, str) else [*stated]
        given = [member.published_as for member in members]
        if len(names) != len(given):
            raise AdapterError(
                f"{folder.path.name} fuses {', '.join(names)}; adapters has {', '.join(given)}.",
                hint=f"Give these {len(names)} adapters.",
            )
        if {*names} != {*given}:
            warnings.warn(
                f"{folder.path.name} fuses {', '.join(names)}; it got {', '.join(given)}.",
                Notice,
                stacklevel=7,
            )


def fuse(*adapters: Bottleneck, **options: Any) -> Fusion:
    """Returns a fusion of bottleneck adapters.

    Args:
        adapters: The adapters, not worn.
        options: The arguments of `Fusion`.

    Raises:
        AdapterError: There are fewer than two adapters, or one is not a `Bottleneck`.

    Example:
        >>> len(fuse(Bottleneck(), Bottleneck()).members)
        2
    """
    return Fusion(adapters=adapters, **options)


def _config(member: Bottleneck, spot: Spot) -> BottleneckConfig:
    config = member.config_at(spot)
    assert config is not None, "an adapter has a configuration wherever it acts"
    return config


def _loaded(
    folder: Folder, spots: Sequence[Spot], wanted: Mapping[str, tuple[int, ...]]
) -> dict[Spot, dict[str, nn.Parameter]]:
    """Returns the tensors of a fusion as parameters.

    Raises:
        MisfitError: Tensors are missing, are not expected, or have another shape.
    """
    held = fusion_tensors(folder)
    known = {(spot, name) for spot in spots for name in wanted}
    missing = tuple(f"{s[0]}.{PLACES[s[1]]}.{name}" for s, name in sorted(known - held.keys()))
    unexpected = tuple(f"{s[0]}.{PLACES[s[1]]}.{name}" for s, name in sorted(held.keys() - known))
    misshapen = {
        f"{spot[0]}.{PLACES[spot[1]]}.{name}": (tuple(held[spot, name].shape), wanted[name])
        for spot, name in known & held.keys()
        if tuple(held[spot, name].shape) != wanted[name]
    }
    if missing or unexpected or misshapen:
        title = f"{folder.path.name} does not fit the adapters that it fuses"
        raise MisfitError(title, missing, unexpected, misshapen)
    return {
        spot: {name: nn.Parameter(held[spot, name], requires_grad=False) for name in wanted}
        for spot in spots
    }
