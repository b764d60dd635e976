"""The contract of a base model: its package, its slots and facts, and adapters on it."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from refiners.installed.factory import build_model
from refiners.installed.inventory import Installed
from refiners.manifest.schema import ModelSpec
from torch import nn

from refiners_core import Chain, Model
from refiners_core.errors import RefinersError
from refiners_core.testing import CONDUCT, LAWS, AdapterCase, Neighbour
from refiners_core.testing.case import bits
from refiners_core.weights import load, published
from refiners_testkit.check import check, expect, expect_none, fail, not_run
from refiners_testkit.family import output
from refiners_testkit.network import no_network
from refiners_testkit.package import PackageContract

_LARGEST: Final = 20_000_000
"""The number of weights up to which the checks build the declared model itself."""


class ModelContract(PackageContract):
    """The whole contract of a base model, as tests.

    Example:
        >>> class TestExample(ModelContract):
        ...     name = "example"
        ...     def tiny(self):
    ...         return build_tiny()
    """

    @classmethod
    def plugin(cls) -> Installed[ModelSpec]:
        """Returns the base model as its manifest describes it."""
        return cls.subject().plugin(cls.name, ModelSpec)

    def outline(self) -> Model:
        """Builds the structure of the declared model, without weights."""
        try:
            return build_model(self.plugin(), None, device="meta")
        except RefinersError as error:
            fail(str(error), "The factory takes (source, *, device=None, dtype=None).")

    def tiny(self) -> Any:
        """Builds a small model of the same family with random weights; by default the declared
        one, unless it is large."""
        size = sum(weight.numel() for weight in self.outline().parameters())
        if size > _LARGEST:
            not_run(f"the model has {size:,} weights: define tiny(self), which builds a small one")
        return build_model(self.plugin(), None, device="cpu").eval()

    def model(self) -> Any:
        """Builds the model on which adapters are tried, with weights from a fixed seed."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            return self.tiny()

    def run(self, model: Any, conditions: Mapping[Any, Any]) -> Any:
        """Runs a model with conditions, and returns its output."""
        return output(model, conditions)

    @check("factory")
    def test_it_builds_without_weights(self) -> None:
        """Builds the structure on the meta device, without files and without a network."""
        with no_network() as hosts:
            model = self.outline()
        expect(not hosts, f"the factory asks for {hosts[:1]}.", "Files come by source.")
        held = [name for name, weight in model.named_parameters() if not weight.is_meta]
        what = f"asked for the meta device, the model has values at {held[:1]}."
        expect(not held, what, "Build in refiners_core.models.device.built_on(device).")

    @check("facts")
    def test_its_facts_are_those_of_the_manifest(self) -> None:
        """Checks that manifest and model state the same base and the same facts."""
        spec, model = self.plugin().spec, self.outline()
        base = spec.base or self.name
        hint = "Adapters are chosen by the manifest and built for the model."
        expect(model.base == base, f"the model has the base {model.base!r}, not {base!r}.", hint)
        wrong = [
            f"the manifest states {name} = {value!r}; the model, {model.facts.get(name)!r}"
            for name, value in spec.facts.items()
            if model.facts.get(name) != value
        ]
        expect_none(wrong, hint)

    @check("slots")
    def test_every_slot_has_places(self) -> None:
        """Checks that manifest and model name the same slots, and that each finds places."""
        spec, model = self.plugin().spec, self.outline()
        hint = "Adapters depend on slots: publish each that has places, and no other."
        if spec.slots:
            wrong = sorted(set(spec.slots) ^ set(model.slots))
            expect(not wrong, f"only one of manifest and model names {wrong[:3]}.", hint)
        empty = [name for name in model.slots if not len(model.slot(name))]
        expect(not empty, f"no place has the slot {empty[:3]}.", hint)
        expect(bool(model.slots), "the model publishes no slots.", hint)

    @check("reproducible")
    def test_two_builds_are_equal(self) -> None:
        """Checks that two builds from one seed are equal, and two runs of one model."""
        first, second = self.model(), self.model()
        pairs = zip(first.named_parameters(), second.named_parameters(), strict=True)
        different = [name for (name, a), (_, b) in pairs if bits(a) != bits(b)]
        what = f"from one seed, {different[:2]} are built differently."
        expect(not different, what, "Use torch's own generator, and no time or device.")
        runs = [bits(self.run(first, {})) for _ in range(2)]
        expect(runs[0] == runs[1], "two runs of the model differ.", "Draw noise from the seed.")

    @check("laws")
    def test_adapters_keep_their_laws_on_it(self) -> None:
        """Checks the laws of adapters, with an adapter beside each linear layer."""
        if not self.model().layers(nn.Linear):
            not_run("the model has no linear layer for the adapter of this check")
        case = AdapterCase(Neighbour, self.model, run=self.run, is_switched=False)
        for law in (*LAWS, *CONDUCT):
            try:
                law(case)
            except AssertionError as error:
                fail(f"{law.__name__}: {error}", f"The law: {law.__doc__}")

    @check("key-map")
    def test_its_layouts_go_both_ways(self) -> None:
        """Checks that each part is published and loaded bit for bit, and strictly."""
        model, other = self.model(), self.model()
        if not model.layouts:
            not_run("the model states no layouts")
        for part, layout in model.layouts.items():
            ours, theirs = model.layer(part, Chain), other.layer(part, Chain)
            hint = f"Correct the KeyMap of {part}."
            try:
                tensors = published(ours, layout)
                load(theirs, tensors, layout)
            except RefinersError as error:
                fail(f"{part} cannot be published and loaded: {error}", hint)
            again = published(theirs, layout)
            lost = [key for key in tensors if bits(tensors[key]) != bits(again[key])]
            expect(not lost, f"{part} comes back with another {lost[:1]}.", hint)
