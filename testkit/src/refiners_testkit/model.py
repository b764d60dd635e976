"""The contract of a package's base model."""

from typing import ClassVar

from refiners.installed.factory import build_model
from refiners.installed.inventory import Installed
from refiners.manifest.schema import ModelSpec
from refiners_core import Model
from refiners_testkit.check import check, expect
from refiners_testkit.package import PackageContract


class ModelContract(PackageContract):
    """The whole contract of a base model, as tests.

    Example:
        >>> class TestExample(ModelContract):
        ...     name = "example"
    """

    name: ClassVar[str]

    @classmethod
    def plugin(cls) -> Installed[ModelSpec]:
        """Returns the base model as its manifest describes it."""
        return cls.subject().plugin(cls.name, ModelSpec)

    def outline(self) -> Model:
        """Builds the structure of the model, without weights."""
        return build_model(self.plugin(), None, device="meta")

    @check("builds")
    def test_it_builds_without_weights(self) -> None:
        """Builds the structure on the meta device."""
        model = self.outline()
        held = [name for name, weight in model.named_parameters() if not weight.is_meta]
        expect(not held, f"on the meta device {held[0] if held else ''} has a value.", "Use built_on(device).")
