"""Checks what a wheel has inside: no weights or pickles, the report, and examples that read."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Final, Literal

from refiners.authoring.outcome import Outcome
from refiners.authoring.package import Package
from refiners.authoring.pin_source import PICKLES
from refiners.catalog.conformance import FILE, reports_in
from refiners.host.shell import quoted
from refiners.manifest.schema import Spec

_WEIGHTS: Final = (".safetensors", ".gguf", ".onnx", ".npz", ".npy", ".h5")
_SMALL: Final = 1_000_000
"""The bytes of weights up to which a wheel may carry them without a word."""
_LARGE: Final = 10_000_000
"""The bytes of weights from which they belong on the Hub."""
_LIMIT: Final = 100_000_000
"""The largest file that the package index accepts by default, in bytes."""
_PICTURE: Final = 200_000
"""The largest picture of an example, in bytes."""


def wheel_checks(package: Package) -> Iterator[Outcome]:
    """Yields the problems of the content of a wheel."""
    build = quoted("pip", "wheel", "--no-deps", "--wheel-dir", package.path / "dist", package.path)
    if package.wheel is None:
        yield "not-run", f"{package.path / 'dist'} has no wheel of {package.version}", build
        return
    for name, size in package.files.items():
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in PICKLES:
            yield "problem", f"{name} is a pickle, which can run code", "Leave it out of the wheel."
        elif suffix in _WEIGHTS and size > _SMALL:
            verdict: Literal["problem", "warning"] = "problem" if size > _LARGE else "warning"
            what = f"{name} is a file of weights of {size / 1e6:.1f} MB"
            yield verdict, what, f"hf upload ORGANISATION/NAME {PurePosixPath(name).name}"
        elif suffix == ".pyc":
            yield "warning", f"{name} is compiled code", "Leave __pycache__ out of the wheel."
    size = package.wheel.stat().st_size
    if size > _LIMIT:
        yield "problem", f"the wheel has {size / 1e6:.0f} MB, and indexes accept 100 MB", build
    roots = {path.parent.name for path in package.manifests}
    for path in package.manifests:
        name = f"{path.parent.name}/{path.name}"
        if name not in package.files:
            fix = f'[tool.setuptools.package-data] {path.parent.name} = ["{path.name}"]'
            yield "problem", f"the wheel lacks {name}", fix
    tops = {name.partition("/")[0] for name in package.files}
    for top in sorted(tops - roots):
        if not top.endswith((".dist-info", ".data")):
            what = f"the wheel also installs {top}, outside its own package"
            yield "warning", what, '[tool.setuptools.packages.find] where = ["src"]'


def conformance_checks(package: Package, specs: Mapping[str, Spec]) -> Iterator[Outcome]:
    """Yields whether the reports are there, of this version, and without failures."""
    for path in package.manifests:
        place = path.with_name(FILE)
        target = place.relative_to(package.path) if package.is_folder else place.name
        fix = quoted("pytest", "--conformance", target)
        if not place.is_file():
            yield "warning", f"{path.parent.name} has no conformance report", fix
            continue
        try:
            reports = reports_in(place.read_bytes())
        except ValueError as error:
            yield "problem", str(error), fix
            continue
        for report in reports:
            if not report.is_of(package.name, package.version):
                yield "problem", f"the report is about {report.dist} {report.version}", fix
            if report.name not in specs:
                yield "problem", f"the report is about {report.name!r}, which is not here", fix
            for check in report.failed:
                yield "warning", f"{report.name} fails {check.check}: {check.reason or ''}", fix
        missing = [name for name in specs if name not in {report.name for report in reports}]
        if missing and path == package.manifests[-1]:
            yield "warning", f"no report is about {', '.join(missing)}", fix


def example_checks(package: Package) -> Iterator[Outcome]:
    """Yields what keeps the examples of a package from being shown."""
    scripts = [p for path in package.manifests for p in sorted(path.parent.glob("examples/*.py"))]
    if not scripts:
        what = "the package has no examples, whose pictures the catalog page shows"
        yield "warning", what, f"{package.manifests[0].parent.name}/examples/NAME.py and NAME.png"
    for script in scripts:
        name = f"examples/{script.name}"
        try:
            text = ast.get_docstring(ast.parse(script.read_text("utf-8")))
        except (SyntaxError, ValueError) as error:
            yield "problem", f"{name} cannot be read: {error}", quoted("python", name)
            continue
        if not text:
            yield "warning", f"{name} has no docstring, its caption", '"""Draws ... ."""'
        picture = script.with_suffix(".png")
        if not picture.is_file():
            yield "warning", f"{name} has no picture", f"Save {picture.name} beside it."
        elif picture.stat().st_size > _PICTURE:
            what = f"examples/{picture.name} has {picture.stat().st_size} bytes"
            yield "warning", what, f"Make it smaller than {_PICTURE} bytes."
