"""Reads the package of a plugin before it is published: its source, or its wheel; runs no code."""

from __future__ import annotations

import email
import re
import tempfile
import zipfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from refiners.authoring.plugin_folder import manifests_in, project_of
from refiners.errors import OptionError
from refiners.host.text import reason_of
from refiners.installed.distribution import canonical, entry_points_in
from refiners.installed.inventory import GROUPS, manifest_place
from refiners.manifest.version import is_same

_LARGEST: Final = 1_000_000_000
"""The most bytes that a wheel may unpack to."""
_HOMES: Final = ("repository", "source", "sourcecode", "github", "code", "homepage")
"""The labels under which projects name their repository, the surest first."""


@dataclass(frozen=True)
class Package:
    """The facts about a plugin's package that a publisher should check."""

    path: Path
    """The folder or the wheel."""
    name: str
    version: str
    license: str
    keywords: tuple[str, ...]
    classifiers: tuple[str, ...]
    requires: tuple[str, ...]
    readme: str
    repository: str
    """The address of its repository; empty if its metadata lack one."""
    manifests: tuple[Path, ...]
    wheel: Path | None
    """The wheel; of a folder, the one of this version in `dist`."""
    files: Mapping[str, int]
    """The size in bytes of each file in the wheel; empty without a wheel."""

    @property
    def is_folder(self) -> bool:
        """Whether the source was read."""
        return self.path != self.wheel


@contextmanager
def opened(path: Path) -> Generator[Package]:
    """Reads a package; the manifests of a wheel exist during the block.

    Raises:
        OptionError: The path is neither the folder nor the wheel of a plugin.
    """
    if path.is_dir():
        yield _of_folder(path)
        return
    if path.suffix != ".whl":
        raise OptionError(
            f"{path} is neither the folder of a plugin nor a wheel.",
            hint="Name the folder that has pyproject.toml, or a file in dist/.",
        )
    with tempfile.TemporaryDirectory(prefix="refiners-wheel-") as folder:
        try:
            package = _of_wheel(path, Path(folder))
        except OptionError:
            raise
        except Exception as error:  # zipfile passes on the errors of many decoders
            raise OptionError(
                f"{path} is not a wheel of a plugin: {reason_of(error)}.",
                hint="Build one: pip wheel --no-deps --wheel-dir dist .",
            ) from error
        yield package


def _of_folder(path: Path) -> Package:
    project = project_of(path)
    name = canonical(project.get("name", ""))
    version: str = project.get("version", "")
    built = (wheel for wheel in path.glob("dist/*.whl") if wheel.is_file())
    wheels = sorted(built, key=lambda wheel: wheel.stat().st_mtime)
    parts = [(wheel, wheel.name.split("-")) for wheel in wheels if wheel.name.count("-") > 1]
    wheel = next(
        (w for w, (stem, built, *_) in reversed(parts)
         if canonical(stem) == name and (not version or is_same(built, version))),
        None,
    )  # fmt: skip
    if not version and wheel is not None:  # a dynamic version
        version = wheel.name.split("-")[1]
    files: dict[str, int] = {}
    if wheel is not None:
        with (
            suppress(Exception),  # wheel_problems reports it
            zipfile.ZipFile(wheel) as archive,
        ):
            files = {info.filename: info.file_size for info in archive.infolist()}
    license, readme = project.get("license", ""), project.get("readme", "")
    if isinstance(license, dict):
        license = license.get("text") or license.get("file") or ""
    return Package(
        path=path,
        name=name,
        version=version,
        license=str(license),
        keywords=tuple(project.get("keywords", ())),
        classifiers=tuple(project.get("classifiers", ())),
        requires=tuple(project.get("dependencies", ())),
        readme=_readme(path, readme),
        repository=_repository(project.get("urls", {})),
        manifests=manifests_in(path),
        wheel=wheel,
        files=files,
    )


def _readme(path: Path, readme: Any) -> str:
    if isinstance(readme, dict):
        if "text" in readme:
            return str(readme["text"])
        readme = readme.get("file", "")
    file = path / str(readme)
    return file.read_text("utf-8", "replace") if readme and file.is_file() else ""


def _repository(urls: Mapping[str, Any]) -> str:
    by_label = {re.sub(r"[^a-z]", "", str(label).lower()): str(url) for label, url in urls.items()}
    return next((by_label[label] for label in _HOMES if label in by_label), "")


def _of_wheel(path: Path, folder: Path) -> Package:
    with zipfile.ZipFile(path) as archive:
        files = {info.filename: info.file_size for info in archive.infolist()}
        if sum(files.values()) > _LARGEST:
            raise ValueError(f"it unpacks to more than {_LARGEST} bytes")
        archive.extractall(folder)  # which keeps names within the folder
    infos = [name for name in files if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
    if len(infos) != 1:
        raise ValueError(f"it has {len(infos) or 'no'} files *.dist-info/METADATA instead of one")
    info = infos[0]
    metadata = email.message_from_string((folder / info).read_text("utf-8", "replace"))
    points = (folder / info).with_name("entry_points.txt")
    text = points.read_text("utf-8") if points.is_file() else ""
    places = [manifest_place(value) for group, _, value in entry_points_in(text) if group in GROUPS]
    manifests = [folder / package / file for package, file in places]
    for manifest in manifests:
        if not manifest.is_file():
            raise OptionError(
                f"{path} lacks {manifest.relative_to(folder)}, which an entry point names.",
                hint="Add it to [tool.setuptools.package-data], and build the wheel again.",
            )
    if not manifests:
        raise ValueError("it has no entry point for a manifest")

    def values(header: str) -> tuple[str, ...]:
        return tuple(map(str, metadata.get_all(header) or ()))

    urls = {
        label.strip(): url.strip()
        for label, _, url in (line.partition(",") for line in values("Project-URL"))
    }
    keywords = (word.strip() for line in values("Keywords") for word in line.split(","))
    body = metadata.get_payload()
    return Package(
        path=path,
        name=canonical(str(metadata.get("Name", ""))),
        version=str(metadata.get("Version", "")),
        license=str(metadata.get("License-Expression") or metadata.get("License") or ""),
        keywords=tuple(word for word in keywords if word),
        classifiers=values("Classifier"),
        requires=values("Requires-Dist"),
        readme=str(body) if isinstance(body, str) else "",
        repository=_repository(urls),
        manifests=tuple(dict.fromkeys(manifests)),
        wheel=path,
        files=files,
    )
