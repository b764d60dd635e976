"""Bottleneck adapters: small networks after the layers of a decoder (arXiv:1902.00751)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn

from refiners_bottleneck.behind import Behind, Spot, norm_of_sum, published_names
from refiners_bottleneck.change import change, reads_stream
from refiners_bottleneck.config import PLACES, BottleneckConfig
from refiners_bottleneck.fit import check_heads, check_model, family_of, loaded
from refiners_bottleneck.folder import CONFIG, published_place, read_folder, write_folder
from refiners_bottleneck.leaf import (
    begin,
    build_leaves,
    leaves_in,
    published_name,
    shapes_of,
    shared_by_all,
)
from refiners_core import Source
from refiners_core.errors import AdapterError
from refiners_core.models.device import built_on


class Bottleneck(Behind):
    """Adds small networks after attention and feed-forward networks (arXiv:1902.00751, figure 2).

    A folder of AdapterHub states its configuration. At a scale of 0 the model is bit for bit the
    bare one; other scales multiply what the networks add.

    Args:
        config: The configuration of an untrained adapter: a name, such as `seq_bn`,
            `double_seq_bn`, `par_bn`, `compacter` or `adapter_plus`, or the fields of
            `BottleneckConfig`.
        reduction_factor: The width of the model over that of the networks, for an untrained
            adapter.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        WeightsError: The configuration is not known.

    Example:
        >>> Bottleneck(config="par_bn", reduction_factor=4).config.scaling
        4.0
    """

    def __init__(
        self,
        *,
        config: str | Mapping[str, Any] | None = None,
        reduction_factor: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._is_stated: Final = (config, reduction_factor) != (None, None)
        stated = {} if reduction_factor is None else {"reduction_factor": reduction_factor}
        if config is None or isinstance(config, str):
            begun = BottleneckConfig.named(config or "seq_bn").changed(**stated)
        else:
            begun = BottleneckConfig.from_json({**config, **stated}, "config")
        self.configs: tuple[BottleneckConfig, ...] = (begun,)
        self.published_as = self.key
        self._about: dict[str, Any] = {}
        self._names = "", ""

    @property
    def config(self) -> BottleneckConfig:
        """The configuration; the first of several for different places."""
        return self.configs[0]

    def config_at(self, spot: Spot) -> BottleneckConfig | None:
        """Returns the configuration of the network at a place; None without one."""
        layer, place = spot
        return next((config for config in self.configs if config.acts(place, layer)), None)

    def build(self, model: Any, source: Source | None) -> None:
        """Builds the networks, and loads them from a folder of AdapterHub.

        Raises:
            AdapterError: The model is not a decoder, or the configuration is stated twice.
            WeightsError: The folder is of another method, for another model, or has a field that is
                not followed.

        Warns:
            Notice: The folder has a head, which is not read.
        """
        folder = None if source is None else read_folder(source)
        if folder is not None and source is not None:
            if self._is_stated:
                raise AdapterError(
                    f"{self.key} got a configuration, but {folder.path.name} has its own.",
                    hint="Leave config= and reduction_factor= out.",
                )
            check_heads(folder, source)
            self.configs = folder.configs
            self.published_as = str(folder.about.get("name", self.key))
        check_model(self.key, model, folder)
        width, layers = int(model.facts["width"]), int(model.facts["layers"])
        origin = self.key if folder is None else folder.path.name
        every = ((layer, place) for place in PLACES for layer in range(layers))
        spots = {spot: config for spot in every if (config := self.config_at(spot)) is not None}
        sizes = {spot: config.size(spot[0], width, origin) for spot, config in spots.items()}
        wanted = {spot: shapes_of(config, width, sizes[spot]) for spot, config in spots.items()}
        with built_on(model.device):
            if folder is None:
                parameters = {spot: begin(shapes) for spot, shapes in wanted.items()}
                _share(spots, parameters)
            else:
                parameters = loaded(folder, spots, wanted)
            self.spots = dict(
                self.put(
                    model,
                    spot,
                    change(
                        config,
                        build_leaves(config, width, sizes[spot], parameters[spot]),
                        self.stream,
                        norm_of_sum(model, spot[1]),
                    ),
                )
                for spot, config in spots.items()
            )
        self.streams = frozenset(
            place for (_, place), config in spots.items() if reads_stream(config)
        )
        self._names = published_names(model)
        self._about = {"hidden_size": width, "model_type": family_of(model)}

    def network(self, spot: Spot) -> nn.Module:
        """Returns the layer at a place, which takes the output there and returns the change."""
        return next(self.own_layers[name] for name, other in self.spots.items() if other == spot)

    def published(self) -> Mapping[str, Tensor]:
        """Returns the tensors under AdapterHub's names."""
        tensors: dict[str, Tensor] = {}
        blocks, around = self._names
        for layer, place in self.spots.values():
            config = self.config_at((layer, place))
            assert config is not None, "networks are built where a configuration acts"
            start = f"{blocks}.{layer}.{published_place(place)}.{self.key}"
            for leaf, module in leaves_in(self.network((layer, place))).items():
                for name, value in module.named_parameters(recurse=False):
                    shared = shared_by_all(config, leaf, name)
                    key = f"{start}.{published_name(config, leaf, name)}"
                    if shared is not None:
                        key = f"{around}.shared_parameters.{self.key}.{shared}"
                    tensors[key] = value.detach()
        return tensors

    def save(self, path: str | Path) -> None:
        """Writes a folder as AdapterHub does: `adapter.safetensors` and `adapter_config.json`.

        Args:
            path: The folder, or the path of the file with the tensors.

        Raises:
            AdapterError: The adapter has not been on a model yet, or has several configurations.
        """
        if not self._about or len(self.configs) > 1:
            problem = "has several configurations" if self._about else "was not on a model yet"
            raise AdapterError(
                f"{self.key} {problem}, so it cannot be saved.",
                hint="Call adapter.inject(model) first; save adapters with one configuration.",
            )
        about = {"config": self.config.to_json(), "name": self.key, **self._about}
        write_folder(self.published(), about, path, ("adapter.safetensors", CONFIG))


def _share(
    spots: Mapping[Spot, BottleneckConfig],
    parameters: dict[Spot, dict[tuple[str, str], nn.Parameter]],
) -> None:
    """Makes untrained bottlenecks share the tensors that their configuration shares."""
    shared: dict[str, nn.Parameter] = {}
    for spot, tensors in parameters.items():
        for pair, value in tensors.items():
            if name := shared_by_all(spots[spot], *pair):
                tensors[pair] = shared.setdefault(name, value)
