"""Checks what a wheel has inside: no weights or pickles, the report, and examples that read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from refiners.authoring.outcome import Outcome
from refiners.authoring.package import Package
from refiners.authoring.wheel import wheel_problems
from refiners.catalog.conformance import FILE, reports_in
from refiners.host.shell import quoted
from refiners.installed.example import examples_in
from refiners.manifest.schema import Spec


def wheel_checks(package: Package, specs: Mapping[str, Spec]) -> Iterator[Outcome]:
    """Yields the problems of the content of a wheel."""
    if package.wheel is None:
        dist = package.path / "dist"
        build = quoted("pip", "wheel", "--no-deps", "--wheel-dir", dist, package.path)
        yield "not-run", f"{dist} has no wheel of {package.version}", build
        return
    pinned = (file for spec in specs.values() for file in spec.weights.values())
    for problem in wheel_problems(
        package.wheel,
        declared={file.address for file in pinned if file.scheme == "pkg"},
        required=[f"{path.parent.name}/{path.name}" for path in package.manifests],
    ):
        yield "problem", problem.what, problem.fix
    for name in package.files:
        if name.endswith(".pyc"):
            yield "warning", f"{name} is compiled code", "Leave __pycache__ out of the wheel."
    roots = {path.parent.name for path in package.manifests}
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
    folders = dict.fromkeys(path.parent for path in package.manifests)
    examples = [each for folder in folders for each in examples_in(folder, package.name)]
    if not examples:
        what = "the package has no examples, whose pictures the catalog page shows"
        yield "warning", what, f"{package.manifests[0].parent.name}/examples/NAME.py and NAME.png"
    for example in examples:
        for fault in () if package.is_folder else example.faults():  # of a folder, the manifest's
            script, picture = example.path.name, example.path.with_suffix(".png").name
            change = f"Replace {picture}" if fault.startswith(picture) else f"Edit {script}"
            yield "problem", fault, f"{change}, and build the wheel again."
        if example.picture is None:
            picture = example.path.with_suffix(".png").name
            yield "warning", f"{example.path.name} has no picture", f"Save {picture} beside it."
