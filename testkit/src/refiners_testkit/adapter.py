"""The contract of a package's adapter: laws on tiny models of every base that it declares."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

import torch

from refiners.installed.factory import build_adapter
from refiners.installed.inventory import Installed
from refiners.manifest.schema import AdapterSpec
from refiners_core import Adapter
from refiners_core.surgery.source import Weights
from refiners_core.testing import AdapterCase, Neighbour
from refiners_core.testing.contract import LAWS
from refiners_testkit.check import check, expect, fail
from refiners_testkit.family import FAMILIES, family_of, output, tiny_model
from refiners_testkit.package import PackageContract

PICTURE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(4))
"""The usual condition: pixels in 0...1."""


class AdapterContract(PackageContract):
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
    beside: ClassVar[Callable[[], Adapter]] = Neighbour
    """Makes another adapter that the same models can wear."""
    is_switched: ClassVar[bool] = True
    """Whether a generation can leave the adapter out."""
    is_visible: ClassVar[bool] = True
    """Whether the adapter changes the output of `run`."""

    @classmethod
    def plugin(cls) -> Installed[AdapterSpec]:
        """Returns the adapter as its manifest describes it."""
        return cls.subject().plugin(cls.name, AdapterSpec)

    def make(self, weights: Weights | None = None) -> Adapter:
        """Builds the adapter as the registry does.

        Args:
            weights: Returns its files; None for the structure without weights.
        """
        return build_adapter(self.plugin(), weights, dict(self.options))

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
            wanted = {target.slot for target in variant.targets}
            for name in (*self.models, *FAMILIES):
                if wanted <= set(self.model(name).slots):
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

    def case(self, base: str) -> AdapterCase:
        """Returns the case for the laws on a base."""
        return AdapterCase(
            self.make,
            partial(self.model, base),
            condition=self.value(),
            targets=self.targets(base),
            run=self.run,
            beside=type(self).beside,
            is_switched=self.is_switched,
            is_visible=self.is_visible,
        )

    def value(self) -> Any:
        """Returns the condition of a generation."""
        adapter = self.make()
        if self.condition is not None or not (adapter.takes_condition and adapter.needs_condition):
            return self.condition
        return dict.fromkeys(adapter.inputs, PICTURE) or PICTURE

    def cases(self) -> Iterator[tuple[str, AdapterCase]]:
        """Yields a case for each base."""
        for base in self.bases():
            yield base, self.case(base)

    @check("laws")
    def test_it_keeps_the_laws_on_every_base(self) -> None:
        """Checks every law of `refiners_core.testing` on each base."""
        for base, case in self.cases():
            for law in LAWS:
                try:
                    law(case)
                except AssertionError as error:
                    fail(f"on {base}: {error}", f"See {law.__name__} in refiners_core.testing.")


