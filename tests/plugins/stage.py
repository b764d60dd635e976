"""A tiny model and the adapters built for it, which are put on and taken off in any order."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import FunctionType
from typing import Any, Final

import refiners
import torch
from refiners.choose.variant import variant_for
from refiners.errors import IncompatibleError
from refiners.installed.factory import build_adapter
from refiners.installed.inventory import Installed
from refiners.sources.origin import introduce
from refiners_ella.connector import ConnectorConfig

from refiners_core import Adapter
from refiners_core.models.clip import ClipImageConfig
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.dino import DinoConfig
from refiners_core.models.image_prompt import ResamplerConfig
from refiners_core.models.t5 import T5Config
from refiners_core.testing import tiny_model, tiny_sdxl, tiny_t5_tokenizer
from refiners_core.testing.case import bits

BASES: Final[Mapping[str, Callable[..., LatentDiffusion]]] = {"sd15": tiny_model, "sdxl": tiny_sdxl}
"""The bases of the matrix, and what builds a tiny model of each."""
LARGEST: Final = 2_000_000
"""The largest number of weights of an adapter on the tiny model."""
ENCODER: Final = ClipImageConfig(
    image_size=32, patch_size=16, width=8, inner_width=16, layers=1, heads=2, projection_width=8
)
DINO: Final = DinoConfig(image_size=28, input_size=28, width=8, inner_width=16, layers=1, heads=2)
RESAMPLER: Final = ResamplerConfig(
    features=8, width=64, heads=1, depth=1, inner=16, tokens=2, out_width=8
)
FACE: Final = torch.randn(512, generator=torch.Generator().manual_seed(5))


def weaker(base: str) -> LatentDiffusion:
    """Returns a tiny model of a base with other weights."""
    model, noise = bare_model(base), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.unet.parameters():
            weight.add_(torch.randn(weight.shape, generator=noise) * 0.02)
    return model


SMALL: Final[Mapping[str, Mapping[str, Any]]] = {
    "refiners_ipadapter.adapter:IpAdapter": {"encoder": ENCODER, "tokens": 2},
    "refiners_ella.adapter:Ella": {
        "encoder": T5Config(
            vocabulary=110, width=8, inner_width=8, layers=1, heads=1, head_width=8
        ),
        "connector": ConnectorConfig(features=8, width=8, tokens=3, layers=1, heads=1, waves=4),
        "tokenizer": tiny_t5_tokenizer(),
    },
    "refiners_ipadapter.adapter:IpAdapterPlus": {"encoder": ENCODER, "resampler": RESAMPLER},
    "refiners_ipadapter.adapter:IpAdapterFull": {"encoder": ENCODER},
    "refiners_ipadapter.adapter:IpAdapterDino": {"encoder": DINO, "resampler": RESAMPLER},
    "refiners_ipadapter.face_id:FaceId": {"rank": 2},
    "refiners_ipadapter.face_id:FaceIdUnnormed": {
        "resampler": ResamplerConfig(width=16, heads=1, depth=1, inner=16, tokens=2)
    },
    "refiners_ipadapter.face_plus:FaceIdPlus": {"encoder": ENCODER, "rank": 2},
    "refiners_instantid.adapter:InstantId": {
        "resampler": ResamplerConfig(width=16, heads=1, depth=1, inner=16, tokens=2)
    },
    "refiners_t2iadapter.style:StyleAdapter": {"encoder": ENCODER},
    "refiners_regional.tiled:MultiDiffusion": {"window": (32, 24), "stride": 8},
    "refiners_regional.tiled:MixtureOfDiffusers": {"window": (32, 24), "stride": 8},
    "refiners_textualinversion.adapter:TextualInversion": {"word": "cat"},
    "refiners_guidance.auto:AutoGuidance": {"weak": weaker},
    "refiners_guidance.threshold:DynamicThreshold": {"mimic": 1.5},
    "refiners_freeu.fresca:FreSca": {"cutoff": 2},
    "refiners_cache.gate:TGate": {"gate_step": 1, "warm_up": 0},
    "refiners_cache.tea:TeaCache": {"threshold": 9.0},
    "refiners_cache.first_block:FirstBlockCache": {"threshold": 9.0},
    "refiners_tokens.tile:HyperTile": {"tile_size": 8, "swap_size": 1},
}
"""The options of factories whose adapters have the sizes of released files, do not act in the
prompts or on a tiny model by default, or need another model; a function returns that for a base."""
SIDES: Final[Mapping[str, int]] = {"sd15": 32, "sdxl": 48}
"""The side of pictures, in which the middle of the UNet has several positions, shrunk or not."""
LATER_STEPS: Final = 4
"""The steps of a generation with a cache, which changes nothing in the first, may not in the last,
and runs in full where another cache leaves a pass out."""
PICTURE: Final = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(4))
VALUES: Final[Mapping[str, Any]] = {
    "regional-prompts": [{"prompt": "a bird", "box": (0, 0, 0.5, 1)}],
}
"""The conditions of adapters that do not take pictures, by name."""


class Fault(AssertionError):
    """Adapters do not keep the laws of composition."""


@dataclass
class Stage:
    """A tiny model, and adapters with random weights that were built for it.

    Args:
        plugins: The adapters, all of which have a variant for the model.
        base: The base of the model.
    """

    plugins: Sequence[Installed[Any]]
    base: str = "sd15"
    model: LatentDiffusion = field(init=False)
    adapters: dict[str, Adapter] = field(default_factory=dict[str, Adapter], init=False)
    alone: dict[str, Any] = field(default_factory=dict[str, Any], init=False)
    """The footprint of each adapter that is worn alone."""
    outcomes: dict[tuple[frozenset[str], int], Any] = field(
        default_factory=dict[Any, Any], init=False
    )
    """The bits of the latents that the model generates with each set of adapters, by steps."""
    late: set[str] = field(default_factory=set[str], init=False)
    """The adapters that change nothing in a single step."""
    kinds: dict[str, tuple[str, str]] = field(default_factory=dict[str, Any], init=False)
    """The class of each adapter and the places that it edits; both are the same for adapters that
    differ in their weights alone."""
    layers: dict[str, tuple[int, int]] = field(default_factory=dict[str, Any], init=False)

    def __post_init__(self) -> None:
        self.model = bare_model(self.base)
        noise = torch.Generator().manual_seed(3)
        for plugin in self.plugins:
            adapter = self.adapters[plugin.name] = built(plugin, self.model)
            adapter.inject(self.model).eject()
            if (size := sum(weight.numel() for weight in adapter.parameters())) > LARGEST:
                raise Fault(f"{plugin.name} has {size} weights; give its factory options in SMALL")
            with torch.no_grad():
                for weight in adapter.parameters():
                    weight.copy_(torch.randn(weight.shape, generator=noise) * 0.2)
        self.layers = layers_of(self.model)
        self.late = {plugin.name for plugin in self.plugins if plugin.spec.kind == "cache"}
        counts = (1, LATER_STEPS) if self.late else (1,)
        for steps in counts:
            self.outcomes[frozenset(), steps] = self.generated(steps)
        factories = {plugin.name: plugin.spec.factory for plugin in self.plugins}
        for name, adapter in self.adapters.items():
            adapter.inject(self.model)
            self.alone[name] = footprint(adapter, self.model)
            self.kinds[name] = factories[name], repr(self.alone[name][0])
            self.check_outcome((name,))
            for steps in counts:
                self.outcomes.setdefault((frozenset((name,)), steps), self.generated(steps))
            adapter.eject()

    def refusal(self, names: Sequence[str], *, is_repeated: bool = False) -> str:
        """Returns why manifests refuse these adapters in this order; empty if they go together.

        Args:
            names: The adapters, in the order in which they are put on.
            is_repeated: Whether another order was checked before, so that the model need not
                generate again without each of them.

        Raises:
            Fault: The adapters conflict, but no manifest declares it, or another law is broken.
        """
        try:
            refusal = self.put_on(names)
            if not refusal:
                for name in names:
                    if footprint(self.adapters[name], self.model) != self.alone[name]:
                        raise Fault(f"{name} edits other places or layers in {' + '.join(names)}")
                self.check_outcome(names)
        except BaseException:
            self.model.eject_all()
            raise
        self.take_off(names, is_checked=not is_repeated)
        return refusal

    def passed_by(self, names: Sequence[str]) -> str:
        """Returns why manifests refuse these adapters; they are put on and taken off alone.

        Raises:
            Fault: The adapters conflict, but no manifest declares it, or one leaves a trace.
        """
        try:
            refusal = self.put_on(names)
        except BaseException:
            self.model.eject_all()
            raise
        self.take_off(names, is_checked=False)
        return refusal

    def put_on(self, names: Sequence[str]) -> str:
        """Injects adapters in this order, up to one that a manifest refuses; returns why.

        Raises:
            Fault: An adapter cannot be injected, but no manifest declares it.
        """
        plugins = {plugin.name: plugin for plugin in self.plugins}
        for name in names:
            try:
                variant_for(plugins[name], self.model)
            except IncompatibleError as error:
                return str(error.trace[0])
            try:
                self.adapters[name].inject(self.model)
            except Exception as error:
                raise Fault(f"{' + '.join(names)} is not refused by a manifest") from error
        return ""

    def check_outcome(self, names: Sequence[str]) -> None:
        """Generates with the worn adapters and compares with other orders and with fewer.

        Raises:
            Fault: The order matters, or one of the adapters changes nothing.
        """
        worn, steps = frozenset(names), self.steps(names)
        outcome = self.generated(steps)
        if self.outcomes.setdefault((worn, steps), outcome) != outcome:
            raise Fault(f"the order of {' + '.join(names)}, or what was worn before, matters")
        for name in names:
            if self.outcomes.get((worn - {name}, steps)) == outcome:
                raise Fault(f"{name} changes nothing in {' + '.join(names)}")

    def take_off(self, names: Sequence[str], *, is_checked: bool) -> None:
        """Ejects adapters in a random order, and checks the model in the end.

        Args:
            names: The adapters.
            is_checked: Whether to check what the model generates after each.

        Raises:
            Fault: An adapter leaves a trace.
        """
        worn = [name for name in names if self.adapters[name] in self.model.adapters]
        for name in random.Random(" ".join(names)).sample(worn, len(worn)):
            self.adapters[name].eject()
            worn.remove(name)
            steps = self.steps(worn)
            known = self.outcomes.get((frozenset(worn), steps)) if is_checked else None
            if known is not None and self.generated(steps) != known:
                raise Fault(f"{name} leaves a trace in {' + '.join(names)}")
        if layers_of(self.model) != self.layers:
            raise Fault(f"the model is not what it was after {' + '.join(names)}")

    def steps(self, names: Sequence[str]) -> int:
        """Returns the number of steps in which all of these adapters change the picture."""
        return LATER_STEPS if self.late.intersection(names) else 1

    def generated(self, steps: int) -> Any:
        """Returns the bits of the latents that the model generates with the worn adapters."""
        worn = self.model.adapters
        words = " ".join(word for adapter in worn for word in adapter.advice.trigger_words)
        with torch.random.fork_rng():
            latents = self.model.generate(
                [f"a cat {words}", "a dog"],
                conditions={a: condition_of(a) for a in worn if a.takes_condition},
                **{"steps": steps, "guidance": 3.0, "sampler": "ddim", "seed": 7},
                **{"output": "latents", "progress": False, "negative_prompt": "a bird"},
                size=SIDES[self.base],
            )
        if not latents.isfinite().all():
            raise Fault(f"{[adapter.key for adapter in worn]} make numbers that are not finite")
        return bits(latents)


def bare_model(base: str) -> LatentDiffusion:
    """Returns a tiny model that states the facts of a base."""
    (published,) = (model for model in refiners.models() if model.name == base)
    return BASES[base](facts=published.spec.facts)


def suitable(base: str = "sd15") -> list[Installed[Any]]:
    """Returns the installed adapters that have a variant for a base, by name."""
    model = bare_model(base)
    return [plugin for plugin in refiners.adapters() if _suits(plugin, model)]


def _suits(plugin: Installed[Any], model: LatentDiffusion) -> bool:
    try:
        variant_for(plugin, model)
    except IncompatibleError:
        return False
    return True


def built(plugin: Installed[Any], model: LatentDiffusion) -> Adapter:
    """Returns an adapter of a package for a model, without weights."""
    options = dict(SMALL.get(plugin.spec.factory, {}))
    if "resampler" in options:
        width = model.unet.config.text_width
        options["resampler"] = replace(options["resampler"], out_width=width)
    for name, value in options.items():
        if isinstance(value, FunctionType):
            options[name] = value(model.base)
    adapter = build_adapter(plugin, None, options)
    introduce(adapter, plugin, options)
    return adapter


def condition_of(adapter: Adapter) -> Any:
    """Returns a picture, or one for each input; for others their value in `VALUES`."""
    if adapter.name in VALUES:
        return VALUES[adapter.name]
    names = adapter.inputs or adapter.optional_inputs[:1]
    if "face" in names:  # as numbers, with a picture and keypoints if the adapter reads them
        names = {*names, "picture", "keypoints"} & {*adapter.inputs, *adapter.optional_inputs}
        return dict.fromkeys(names, PICTURE) | {"face": FACE}
    return dict.fromkeys(names, PICTURE) or PICTURE


def layers_of(model: LatentDiffusion) -> dict[str, tuple[int, int]]:
    """Returns the identities of layers and of their mappings of children, by path."""
    return {name: (id(m), id(m._modules)) for name, m in model.named_modules()}


def footprint(adapter: Adapter, model: LatentDiffusion) -> Any:
    """Returns the places and base layers that an adapter edits, and its own layers."""
    edits: Any = adapter.edits(model)
    places = [
        (seat.path, edit.kind, edit.stage, id(seat.layer)) for edit in edits for seat in edit.seats
    ]
    layers = {name: (id(m), id(m._modules)) for name, m in adapter.named_modules()}
    return places, layers
