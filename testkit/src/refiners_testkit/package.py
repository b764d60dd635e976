"""The checks of a package, whatever it brings: its files, its manifest, its imports, its wheel."""

import runpy
import sys
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar
from unittest.mock import patch

import pytest
from refiners.authoring.import_names import imported_names
from refiners.authoring.validate import Finding, validate
from refiners.authoring.wheel import LARGEST, wheel_problems
from refiners.installed.example import examples_in

from refiners_core.public import public_names
from refiners_testkit.check import check, expect, expect_none, not_run
from refiners_testkit.fresh_import import faults_of_import
from refiners_testkit.installation import installed
from refiners_testkit.network import no_network
from refiners_testkit.subject import Subject, subject_of
from refiners_testkit.wheel import declared_files, wheel_of


class PackageContract:
    """The part of a contract that adapters and base models share."""

    name: ClassVar[str]
    """The name of the plugin in its manifest."""
    root: ClassVar[Path | None] = None
    """The folder of the package; by default the one above the test with a `pyproject.toml`."""
    overruled: ClassVar[Mapping[str, str]] = {}
    """The reasons not to run a check, by its id; the report has them."""
    largest_wheel: ClassVar[int] = LARGEST
    """The limit of the wheel and of each file in it, in bytes."""

    @classmethod
    def subject(cls) -> Subject:
        """Returns the package under test."""
        place = cls.root / "_" if cls.root else Path(str(sys.modules[cls.__module__].__file__))
        return subject_of(place.resolve())

    @classmethod
    def identity(cls) -> dict[str, str]:
        """Returns the name, the distribution and the version for the report, and the folder."""
        try:
            subject = cls.subject()
        except pytest.fail.Exception:
            return {"name": cls.name, "dist": "unknown", "version": "0", "root": ""}
        facts = {"dist": subject.dist, "version": subject.version, "root": str(subject.root)}
        return {"name": cls.name, **facts}

    def findings(self, rule: str) -> list[str]:
        """Returns the problems that `refiners validate --strict` finds by a rule."""
        return [_line(f) for f in validate(self.subject().root, is_strict=True) if f.rule == rule]

    def obey(self, rule: str, hint: str) -> None:
        """Fails if `refiners validate --strict` finds a problem by a rule."""
        expect_none(self.findings(rule), hint)

    @check("package")
    def test_the_project_table_announces_the_package(self) -> None:
        """Checks names, dependencies, entry points and the page for the index."""
        self.obey("package", "Correct pyproject.toml.")

    @check("manifest")
    def test_the_manifest_is_true(self) -> None:
        """Checks the keys of the manifest, and that its factories and files exist."""
        self.obey("manifest", "Correct the manifest.")

    @check("core-range")
    def test_the_range_of_the_core_is_true(self) -> None:
        """Checks that the range has the running core and an end."""
        self.obey("core-range", "The range is that of the cores which the tests have run on.")

    @check("pins")
    def test_every_file_is_pinned(self) -> None:
        """Checks that each file has a commit, a hash and a size, and none is a pickle."""
        self.obey("pins", "refiners pin fills commit, hash and size of a file.")

    @check("license")
    def test_code_and_weights_have_a_license(self) -> None:
        """Checks the licences of code and weights, and the file with the text."""
        self.obey("license", "Without a license nobody may use the package.")

    @check("name")
    def test_the_name_is_free(self) -> None:
        """Checks that no other package has published the name."""
        self.obey("name", "refiners search NAME shows what has a name.")

    @check("text")
    def test_texts_are_plain(self) -> None:
        """Checks that no text has characters that a terminal interprets or hides."""
        self.obey("text", "Remove escapes, marks of direction and invisible characters.")

    @check("advice")
    def test_the_advice_can_be_followed(self) -> None:
        """Checks that the advice names known samplers and possible settings."""
        self.obey("advice", "refiners samplers lists the names of samplers.")

    @check("public-names")
    def test_the_code_imports_public_names_only(self) -> None:
        """Checks that the code imports public names of the core, and no other plugin."""
        self.obey("public-names", "A name that is missing deserves an issue.")
        for _, package, path in self.subject().manifests:
            for place, line, module, name in imported_names(path.parent):
                is_known = not module or not name or name in ("*", *public_names(module))
                what = f"{place.name}, line {line}: {module} has no public name {name!r}"
                expect(is_known, what, f"refiners api lists the names for {package}.")

    @check("import-without-torch")
    def test_importing_the_package_loads_no_torch(self) -> None:
        """Imports the packages in a fresh process, without torch and without a network."""
        expect_none(
            faults_of_import(self.subject()),
            "Keep __init__.py free of such imports; the factory names the module to import.",
        )

    @check("wheel")
    def test_the_wheel_is_fit_to_publish(self) -> None:
        """Builds the wheel and checks its files, their sizes, its licence and its page."""
        subject = self.subject()
        wheel = wheel_of(subject.root)
        required = {f"{package}/{path.name}" for _, package, path in subject.manifests}
        problems = [
            f"{problem.what}: {problem.fix}"
            for problem in wheel_problems(
                wheel,
                declared=declared_files(subject),
                required=required,
                largest=self.largest_wheel,
            )
        ]
        expect_none(problems, "Correct the tree, or the package data in pyproject.toml.")

    @check("examples")
    def test_the_examples_run(self) -> None:
        """Runs each script in the `examples` folder of the package, from an empty folder."""
        subject = self.subject()
        expect_none(self.findings("examples"), "Correct the examples and the package data.")
        examples = [
            example
            for package in subject.packages
            for example in examples_in(subject.source / package, subject.dist)
        ]
        if not examples:
            not_run("the package has no examples; put scripts into its folder examples/")
        for example in examples:
            _run_example(subject, example.path)


def _line(finding: Finding) -> str:
    return f"{finding.path.name}: {finding.what}"


def _run_example(subject: Subject, script: Path) -> None:
    from refiners.host.text import reason_of

    with (
        TemporaryDirectory(prefix="refiners-example-") as folder,
        chdir(folder),
        installed(subject),
        no_network() as hosts,
    ):
        error: BaseException | None = None
        try:
            with patch.object(sys, "argv", [str(script)]):
                runpy.run_path(str(script), run_name="__main__")
        except KeyboardInterrupt:
            raise
        except SystemExit as end:
            error = end if end.code else None
        except BaseException as raised:
            error = raised
    name = f"examples/{script.name}"
    expect(
        not hosts, f"{name} asks for {hosts[:1]}.", "Use the playground, which needs no network."
    )
    what = f"{name} does not run: {type(error).__name__}: {reason_of(error) if error else ''}"
    expect(error is None, what, f"Run python {script}.")
