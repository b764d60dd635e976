"""Checks the source of a plugin before publication, without running its code."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from refiners.authoring.import_names import private_imports
from refiners.authoring.plugin_folder import (
    entry_values,
    is_shipped,
    read_project,
    source_root,
)
from refiners.authoring.portable import unusable
from refiners.authoring.promise import broken_promises, installed_bases
from refiners.authoring.publication import (
    Problem,
    plugin_problems,
    project_problems,
    unsafe_texts,
)
from refiners.errors import ManifestError, OptionError
from refiners.hub.receipts import sha256_of
from refiners.installed.distribution import DISTRIBUTION, canonical, distribution_of
from refiners.installed.example import FOLDER, examples_in
from refiners.installed.inventory import GROUPS, manifest_place
from refiners.manifest.reader import load_manifest
from refiners.manifest.schema import (
    MANIFESTS,
    UNKNOWN,
    AdapterManifest,
    FamilySpec,
    Manifest,
    ModelManifest,
    WeightsFile,
)
from refiners.manifest.toml import TomlError

if TYPE_CHECKING:
    from refiners.errors import FaultyEntry

_RULES: Final = {
    "advice": "advice",
    "core-api": "core-range",
    "license": "license",
    "revision": "pins",
    "sha256": "pins",
}
"""The rules that faults of some keys of a manifest break."""


class Finding(NamedTuple):
    """One problem to fix before a plugin is published."""

    path: Path
    what: str
    rule: str = "manifest"
    """The check of a conformance report that the problem belongs to."""


def validate(path: Path, *, is_strict: bool = False) -> tuple[Finding, ...]:
    """Checks a manifest, or the folder of a plugin with its pyproject.toml.

    Args:
        path: The file or the folder.
        is_strict: Whether every file must have a pin, a size, a licence and a safe format, as
            required of a new publication.

    Raises:
        OptionError: The path is neither a manifest nor the folder of a plugin.
    """
    if path.is_file():
        return tuple(manifest_findings(path, kind_of_file(path), None, is_strict))
    project = path / "pyproject.toml"
    if not project.is_file():
        raise OptionError(
            f"{path} has no pyproject.toml.", hint="Name a manifest, or the folder of a plugin."
        )
    return tuple(_project(project, is_strict))


def kind_of_file(path: Path) -> type[Manifest]:
    """Returns the kind of a manifest, by the name of its file."""
    kinds = {f"{kind}.toml": manifest for kind, manifest in MANIFESTS.items()}
    return kinds.get(path.name, AdapterManifest)


def _project(path: Path, is_strict: bool) -> Iterator[Finding]:
    try:
        table, faults = read_project(path)
    except (OSError, TomlError) as error:
        yield Finding(path, f"cannot be read: {type(error).__name__}: {error}", "package")
        return
    yield from (Finding(path, fault, "package") for fault in faults.values())
    if "project" not in table:
        if ("project",) not in faults:
            yield Finding(path, "it has no table [project]", "package")
        return
    project: dict[str, Any] = table["project"]
    values = [*entry_values(project)]
    name = canonical(project.get("name", ""))
    if not name.startswith("refiners-") and ("project", "name") not in faults:
        yield Finding(path, f'the name {name!r} should begin with "refiners-"', "package")
    names = [_required(dependency) for dependency in project.get("dependencies", ())]
    if DISTRIBUTION not in names and ("project", "dependencies") not in faults:
        hint = f'dependencies = ["{DISTRIBUTION}>=1.0.0.dev0,<2"]'
        if "refiners" in names:
            what = f"refiners is another project on the package index: {hint}"
        else:
            what = f"it does not depend on {DISTRIBUTION}: {hint}"
        yield Finding(path, what, "package")
    if not values and not any(place[:2] == ("project", "entry-points") for place in faults):
        what = f'no entry point: [project.entry-points."{next(iter(GROUPS))}"]'
        yield Finding(path, what, "package")
    if is_strict:
        yield from (Finding(path, what, rule) for rule, what in project_problems(path, project))
    yield from (Finding(path, what, rule) for rule, what in unsafe_texts(path))
    packages: set[Path] = set()
    for value in values:
        try:
            package, file = manifest_place(value)
        except ValueError as error:
            yield Finding(path, str(error), "package")
            continue
        folder = source_root(path.parent, package)
        if folder is None or not (folder / package / file).is_file():
            yield Finding(path, f"the entry point {value!r} does not name a file", "package")
            continue
        if not is_shipped(table, package, file):
            where = f"[tool.setuptools.package-data] {package}"
            what = f'{file} would be left out of the wheel: {where} = ["{file}"]'
            yield Finding(path, what, "package")
        if folder / package not in packages:
            packages.add(folder / package)
            yield from _examples(path, table, folder / package, name)
        manifest = folder / package / file
        yield from manifest_findings(
            manifest, kind_of_file(manifest), folder, is_strict, name, names
        )
    for package in sorted(packages) if is_strict else ():
        yield from _imports(package)


def _imports(package: Path) -> Iterator[Finding]:
    try:
        for path, what in private_imports(package):
            yield Finding(path, what, "public-names")
    except (OSError, SyntaxError, ValueError) as error:
        yield Finding(package, f"cannot be read: {error}", "public-names")


def _required(dependency: str) -> str:
    """Returns the distribution that a requirement is for, as indexes compare names."""
    match = re.match(r"[\w.-]+", dependency.strip())
    return canonical(match[0]) if match else ""


def _examples(
    project: Path, table: Mapping[str, Any], package: Path, dist: str
) -> Iterator[Finding]:
    """Yields the problems of the examples of a package, which are parsed and not run."""
    for example in examples_in(package, dist):
        for fault in example.faults():
            yield Finding(example.path, fault, "examples")
        for path in (example.path, example.picture):
            if path is not None and not is_shipped(table, package.name, f"{FOLDER}/{path.name}"):
                where = f"[tool.setuptools.package-data] {package.name}"
                what = (
                    f'{FOLDER}/{path.name} would be left out of the wheel: {where} = ["{FOLDER}/*"]'
                )
                yield Finding(project, what, "examples")


def manifest_findings(
    path: Path,
    kind: type[Manifest],
    source: Path | None,
    is_strict: bool,
    dist: str = "",
    dependencies: Collection[str] = (),
) -> Iterator[Finding]:
    """Yields the problems of a manifest, and of the code and files in its package.

    Args:
        path: The manifest.
        kind: Its kind.
        source: The folder that has the package; None to check the manifest alone.
        is_strict: Whether the rules for new publications apply.
        dist: The distribution, for rules about its name; empty if it is not known.
        dependencies: The distributions that the package needs, whose classes it may name.
    """
    try:
        manifest = load_manifest(path, kind)
    except ManifestError as error:
        for fault in error.faults:
            yield Finding(path, str(fault), _rule_of(fault))
        return
    yield from (Finding(path, what, rule) for rule, what in unsafe_texts(path))
    bases = installed_bases()
    families = manifest.family if isinstance(manifest, ModelManifest) else {}
    for name, spec in (*manifest.tables.items(), *families.items()):
        for rule, problem in broken_promises(name, spec, bases):
            yield Finding(path, problem, rule)
        if source is not None:
            yield from _factory(path, name, spec.factory, source, dependencies)
            if isinstance(spec, FamilySpec) and spec.checker is not None:
                yield from _factory(path, name, spec.checker, source, dependencies)
        for role, file in spec.weights.items():
            key = f"{name}.weights.{role}"
            yield from _packaged(path, key, file, source)
            for problem in unusable(file):
                yield Finding(path, f"{key}: {problem}")
            for rule, problem in _missing_pins(file) if is_strict else ():
                yield Finding(path, f"{key}: {problem}", rule)
        for rule, what in plugin_problems(dist, kind.kind, name, spec) if is_strict else ():
            yield Finding(path, what, rule)


def _rule_of(fault: FaultyEntry) -> str:
    """Returns the rule that a fault of a manifest breaks, by the keys that lead to it."""
    return next((_RULES[key] for key in fault.place if key in _RULES), "manifest")


def _factory(
    path: Path, name: str, reference: str, source: Path, dependencies: Collection[str]
) -> Iterator[Finding]:
    """Yields the problems of a factory, of which only the package's own code is read.

    Weights for an adapter class of another package need no code: the package depends on the other.
    """
    module, _, attribute = reference.partition(":")
    package = module.partition(".")[0]
    owner = distribution_of(package)
    if not (source / package).is_dir() and not (source / f"{package}.py").is_file():
        if owner not in dependencies:
            yield Finding(
                path,
                f"{name}: the factory {reference!r} is in no module of this package, which does "
                f'not depend on {owner}: dependencies = [..., "{owner}"]',
            )
        return
    file = source.joinpath(*module.split("."))
    code = next((f for f in (file.with_suffix(".py"), file / "__init__.py") if f.is_file()), None)
    if code is None:
        yield Finding(path, f"{name}: the factory {reference!r} is in no module of this package")
        return
    try:
        body = ast.parse(code.read_text("utf-8")).body
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as error:
        yield Finding(code, f"cannot be read: {error}")
        return
    names: set[str] = set()
    for statement in body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in statement.names}
        elif isinstance(statement, ast.Assign):
            names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
    if attribute not in names:
        yield Finding(path, f"{name}: {code.name} does not define {attribute}")


def _packaged(path: Path, key: str, file: WeightsFile, source: Path | None) -> Iterator[Finding]:
    package, name = file.package_path
    if file.scheme != "pkg" or source is None or not (source / package).is_dir():
        return
    weights = source / package / name
    if not weights.is_file():
        yield Finding(path, f"{key}: {file.source} does not exist")
    elif (digest := sha256_of(weights)) != file.sha256:
        yield Finding(path, f"{key}: {file.source} has the sha256 {digest}")
    elif file.size not in (None, weights.stat().st_size):
        yield Finding(path, f"{key}: {file.source} has {weights.stat().st_size} bytes")


def _missing_pins(file: WeightsFile) -> Iterator[Problem]:
    for key in ("revision", "sha256") if file.scheme == "hf" else ("sha256",):
        if getattr(file, key) == UNKNOWN:
            yield "pins", f"the {key} is unknown"
    if file.size is None:
        yield "pins", "the size is missing"
    if not file.license:
        yield "license", "the license is missing"
    if file.format == "pickle":
        yield "pins", "the file is a pickle; publish safetensors"
