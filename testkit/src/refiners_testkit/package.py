"""The checks of a package, whatever it brings: its files, its manifest, its imports."""

import sys
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest

from refiners.authoring.validate import Finding, validate
from refiners_testkit.check import check, expect_none
from refiners_testkit.subject import Subject, subject_of

LARGEST_WHEEL: Final = 15_000_000
"""The usual limit of a wheel, in bytes."""


class PackageContract:
    """The part of a contract that adapters and base models share."""

    name: ClassVar[str]
    """The name of the plugin in its manifest."""
    root: ClassVar[Path | None] = None
    """The folder of the package; by default the one above the test with a `pyproject.toml`."""
    overruled: ClassVar[dict[str, str]] = {}
    """The reasons not to run a check, by its id; the report has them."""

    @classmethod
    def subject(cls) -> Subject:
        """Returns the package under test."""
        place = cls.root / "_" if cls.root else Path(str(sys.modules[cls.__module__].__file__))
        return subject_of(place.resolve())

    @classmethod
    def identity(cls) -> dict[str, str]:
        """Returns the name, the distribution and the version for the report."""
        try:
            subject = cls.subject()
        except pytest.fail.Exception:
            return {"name": cls.name, "dist": "unknown", "version": "0"}
        return {"name": cls.name, "dist": subject.dist, "version": subject.version}

    @check("manifest")
    def test_the_manifest_is_true_and_complete(self) -> None:
        """Asks `refiners validate --strict`."""
        expect_none(self.findings(), f"refiners validate --strict {self.subject().root}")

    def findings(self) -> list[Finding]:
        """Returns the problems that `refiners validate --strict` finds."""
        return [*validate(self.subject().root, is_strict=True)]
