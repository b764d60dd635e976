"""The contract of an adapter: its package, its laws, its file, on tiny models of its bases."""

import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, Final

import torch
from refiners.installed.factory import build_adapter
from refiners.installed.inventory import Installed
from refiners.manifest.schema import AdapterSpec

from refiners_core import Adapter
from refiners_core.surgery.source import Weights
from refiners_core.testing import AdapterCase, Neighbour
from refiners_core.testing.case import bits
from refiners_testkit.check import check, expect, fail
from refiners_testkit.family import FAMILIES, family_of, output, tiny_model
from refiners_testkit.file_check import FileChecks
from refiners_testkit.law import Laws
from refiners_testkit.network import no_network
from refiners_testkit.package import PackageContract

PICTURE: Final = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(4))
"""The usual condition: pixels in 0...1."""


class AdapterContract(PackageContract, Laws, FileChecks):
    """The whole contract of an adapter, as tests.

    Example:
        >>> class TestEdgeGuide(AdapterContract):
        ...     name = "edge-guide"
        ...     options = {"rank": 2}
    """

    options: ClassVar[Mapping[str, Any]] = {}
    """The arguments of its constructor that make it small, or make it act on a tiny model."""
    condition: ClassVar[Any] = None
    """The condition of a generation; by default a random picture if the adapter needs one."""
    models: ClassVar[Mapping[str, Callable[[], Any]]] = {}
    """The builders of tiny models, by base, for bases that the kit does not know."""
    is_switched: ClassVar[bool] = True
    """Whether a generation can leave the adapter out."""
    is_visible: ClassVar[bool] = True
    """Whether the adapter changes the output of `run`."""

    @classmethod
    def plugin(cls) -> Installed[AdapterSpec]:
        """Returns the adapter as its manifest describes it."""
        return cls.subject().plugin(cls.name, AdapterSpec)

    def beside(self) -> Adapter:
        """Makes another adapter that the same models can wear."""
        return Neighbour()

    def options_for(self, base: str) -> Mapping[str, Any]:
        """Returns the arguments of the constructor for a tiny model of a base."""
        return self.options

    def make(self, base: str, weights: Weights | None = None) -> Adapter:
        """Builds the adapter as the registry does.

        Args:
            base: The base of the model that it is for.
            weights: Returns its files; None for the structure without weights.
        """
        return build_adapter(self.plugin(), weights, dict(self.options_for(base)))

    def model(self, base: str) -> Any:
        """Builds a tiny model of a base."""
        if base in self.models:
            return self.models[base]()
        return tiny_model(family_of(base), **({} if base in FAMILIES else {"base": base}))

    def run(self, model: Any, conditions: Mapping[Adapter, Any]) -> Any:
        """Runs a model with conditions, and returns its output."""
        return output(model, conditions)

    def bases(self) -> tuple[str, ...]:
        """Returns the declared bases, and the families with the slots of variants for any."""
        bases: dict[str, None] = {}
        for variant in self.plugin().spec.variant:
            if variant.base is not None:
                bases[variant.base] = None
                continue
            slots = {_without_place(target.slot) for target in variant.targets}
            for name in (*self.models, *FAMILIES):
                if slots <= set(self.model(name).slots):
                    bases[name] = None
        for base in bases:
            if base not in self.models and not family_of(base):
                fail(
                    f"{self.name} declares the base {base!r}, of which no tiny model is known.",
                    f"Write models = {{{base!r}: build}} in the test class.",
                )
        expect(
            bool(bases),
            f"no tiny model has all the slots that {self.name} declares.",
            'Write models = {"base": build} in the test class, or correct the targets.',
        )
        return tuple(bases)

    def targets(self, base: str) -> list[tuple[str, str]]:
        """Returns the slots and stages that the variants for a base declare."""
        variants = [v for v in self.plugin().spec.variant if v.base in (base, None)]
        pairs = [(t.slot, t.stage) for variant in variants for t in variant.targets]
        return list(dict.fromkeys(pairs))

    def value(self, adapter: Adapter) -> Any:
        """Returns the condition of a generation with the adapter."""
        if self.condition is not None or not (adapter.takes_condition and adapter.needs_condition):
            return self.condition
        return dict.fromkeys(adapter.inputs, PICTURE) or PICTURE

    def cases(self) -> Iterator[tuple[str, AdapterCase]]:
        """Yields the name and the case of each base."""
        for base in self.bases():
            yield (
                base,
                AdapterCase(
                    partial(self.make, base),
                    partial(self.model, base),
                    condition=self.value(self.make(base)),
                    targets=self.targets(base),
                    run=self.run,
                    beside=self.beside,
                    is_switched=self.is_switched,
                    is_visible=self.is_visible,
                ),
            )

    @check("factory")
    def test_the_factory_builds_on_every_base(self) -> None:
        """Builds the adapter for a tiny model of each base, and asks its scale and name."""
        for base, case in self.cases():
            model, adapter = case.model(), case.make()
            hint = "The factory takes name= and weights=, and build() works without files."
            try:
                adapter.inject(model).eject()
            except Exception as error:
                fail(f"on {base}: {type(error).__name__}: {error}", hint)
            what = f"its name is {adapter.name!r}, not {self.name!r}."
            expect(adapter.name == self.name, what, "Pass name= on to Adapter.__init__.")

    @check("network")
    def test_it_uses_no_network(self) -> None:
        """Builds, injects and runs the adapter without a network."""
        for base, case in self.cases():
            with no_network() as hosts:
                error = _error_of(partial(_worn_once, case))
            hint = "Files come by weights=, which the registry fetches and verifies."
            expect(not hosts, f"on {base}: it asks for {', '.join(hosts[:3])}.", hint)
            if error is not None:
                fail(f"on {base}: {type(error).__name__}: {error}", hint)

    @check("reproducible")
    def test_two_builds_are_equal(self) -> None:
        """Checks that two adapters that were built from the same seeds are equal."""
        for base, case in self.cases():
            first, second = (_weights_after_seeding(case) for _ in range(2))
            different = [key for key in first if first[key] != second.get(key)]
            what = f"on {base}: from one seed, {' and '.join(different[:2])} are built differently."
            expect(not different, what, "Use torch's own generator, and no time or device.")

    @check("device")
    def test_it_takes_the_device_of_the_base(self) -> None:
        """Injects the adapter into a model on the meta device."""
        for base, case in self.cases():
            model, adapter = case.model().to("meta"), case.make()
            bare = set(model.modules())
            adapter.inject(model)
            placed = [
                (name, weight.device)
                for name, layer in model.named_modules()
                for weight in (() if layer in bare else layer.parameters(recurse=False))
                if weight.device.type != "meta"
            ]
            what = f"on {base}: the model is on meta, and {placed[:1]} is not."
            expect(not placed, what, "Get layers by self.layer(seat, build), or build them there.")


def _without_place(slot: str) -> str:
    """Returns a slot without the number of a single place."""
    name, _, index = slot.rpartition(".")
    return name if index.isdecimal() else slot


def _worn_once(case: AdapterCase) -> None:
    model, adapter = case.model(), case.make()
    adapter.inject(model)
    case.run(model, case.conditions(adapter))
    adapter.eject()


def _error_of(run: Callable[[], None]) -> Exception | None:
    try:
        run()
    except Exception as error:
        return error
    return None


def _weights_after_seeding(case: AdapterCase) -> dict[str, Any]:
    model = case.model()
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(3)
        random.seed(3)
        adapter = case.make()
        adapter.inject(model)
    tensors = (*adapter.named_parameters(), *adapter.named_buffers())
    return {name: bits(tensor) for name, tensor in tensors if tensor.device.type != "meta"}
