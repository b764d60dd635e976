"""The contents of wheels besides manifests: pictures, conformance reports, facts of classes."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

import msgspec

from refiners.errors import CatalogError
from refiners.host.text import reason_of
from refiners.installed.distribution import canonical
from refiners.manifest.term import WORDS
from refiners.page.class_facts import ClassFacts
from refiners.page.text import clipped

_LARGEST: Final = 200_000
"""The most bytes of a picture."""
_REPORT: Final = 1_000_000
"""The most bytes of a report or a source file."""
_PIXELS: Final = 4_000
"""The longest side of a picture in pixels."""
_MOST: Final = 12
"""The most pictures of one distribution."""
_FORMATS: Final = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
"""The formats that browsers draw and that run nothing, with the ending of their files."""
_EXAMPLE: Final = re.compile(r"[^/]+/examples/[^/]+\.(png|jpe?g|webp)", re.IGNORECASE)


class Picture(NamedTuple):
    """A picture of an example."""

    content: bytes
    ending: str
    width: int
    height: int
    title: str
    """The first line of its script's docstring; the name of its file without one."""
    names: frozenset[str]
    """The names that its script has in quotes; none without a script."""


class Extras(NamedTuple):
    """The facts about distributions that are not in their manifests."""

    pictures: Mapping[str, tuple[Picture, ...]] = {}
    """The pictures of each distribution."""
    reports: Mapping[str, tuple[Any, ...]] = {}
    """The conformance reports of each distribution."""
    classes: Mapping[str, ClassFacts] = {}
    """The sources of each distribution, to read attributes of classes."""

    def pictures_of(self, dist: str, name: str) -> tuple[Picture, ...]:
        """Returns the pictures of a plugin: those that name it, or all if none names a plugin."""
        pictures = self.pictures.get(dist, ())
        naming = tuple(picture for picture in pictures if name in picture.names)
        return naming or tuple(picture for picture in pictures if not picture.names)


def read_extras(wheels: Iterable[Path] = (), folder: Path | None = None) -> Extras:
    """Reads wheels as archives, and a folder of pictures; nothing is installed or imported.

    Args:
        wheels: Wheels of published plugins.
        folder: A folder that has a folder of pictures for each distribution.

    Raises:
        CatalogError: A file is not a wheel.
    """
    pictures: dict[str, tuple[Picture, ...]] = {}
    reports: dict[str, tuple[Any, ...]] = {}
    classes: dict[str, ClassFacts] = {}
    for path in wheels:
        dist = canonical(path.name.partition("-")[0])
        try:
            with zipfile.ZipFile(path) as wheel:
                pictures[dist] = _pictures(_Archive(wheel))
                reports[dist] = (*_reports(wheel),)
                classes[dist] = ClassFacts(
                    {name: _text(wheel, name) for name in wheel.namelist() if name.endswith(".py")}
                )
        except Exception as error:  # zipfile passes on the errors of many decoders
            raise CatalogError(
                f"{path} is not a wheel: {reason_of(error)}.",
                hint="Build one: pip wheel --no-deps .",
            ) from error
    for home in sorted(folder.iterdir()) if folder is not None else ():
        if home.is_dir():
            dist = canonical(home.name)
            pictures[dist] = (*_pictures(_Folder(home)), *pictures.get(dist, ()))[:_MOST]
    return Extras(pictures, reports, classes)


class _Archive:
    """The examples in a wheel."""

    def __init__(self, wheel: zipfile.ZipFile) -> None:
        self._wheel = wheel

    def names(self) -> list[str]:
        return sorted(name for name in self._wheel.namelist() if _EXAMPLE.fullmatch(name))

    def read(self, name: str) -> bytes:
        try:
            info = self._wheel.getinfo(name)
        except KeyError:
            return b""
        return self._wheel.read(name) if info.file_size <= _LARGEST else b""


class _Folder:
    """The examples in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        return sorted(f"p/examples/{path.name}" for path in self._folder.iterdir()
                      if _EXAMPLE.fullmatch(f"p/examples/{path.name}"))  # fmt: skip

    def read(self, name: str) -> bytes:
        path = self._folder / PurePosixPath(name).name
        is_small = path.is_file() and path.stat().st_size <= _LARGEST
        return path.read_bytes() if is_small else b""


def _pictures(examples: _Archive | _Folder) -> tuple[Picture, ...]:
    pictures = (_picture(examples, name) for name in examples.names())
    return tuple(picture for picture in pictures if picture is not None)[:_MOST]


def _picture(examples: _Archive | _Folder, name: str) -> Picture | None:
    """Returns a picture with the facts of the script beside it; None if browsers cannot draw it."""
    from PIL import Image, UnidentifiedImageError

    content = examples.read(name)
    try:
        with Image.open(io.BytesIO(content), formats=(*_FORMATS,)) as image:
            kind, (width, height) = str(image.format), image.size
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError):
        return None
    if not 0 < max(width, height) <= _PIXELS:
        return None
    path = PurePosixPath(name)
    script = examples.read(str(path.with_suffix(".py"))).decode("utf-8", "replace")
    summary = re.match(r'\s*(?:#[^\n]*\n\s*)*"""\s*([^\n"]+)', script)
    title = summary[1] if summary else path.stem.replace("_", " ").replace("-", " ")
    names = frozenset(re.findall(rf"[\"']({WORDS})[\"']", script))
    names = frozenset(match if isinstance(match, str) else match[0] for match in names)
    return Picture(content, _FORMATS[kind], width, height, clipped(title, 160), names)


def _reports(wheel: zipfile.ZipFile) -> Iterator[Any]:
    for name in wheel.namelist():
        if re.fullmatch(r"[^/]+/conformance\.json", name):
            try:
                report = msgspec.json.decode(_text(wheel, name).encode())
            except (msgspec.DecodeError, RecursionError):
                continue
            yield from report if isinstance(report, list) else [report]


def _text(wheel: zipfile.ZipFile, name: str) -> str:
    if wheel.getinfo(name).file_size > _REPORT:
        return ""
    return wheel.read(name).decode("utf-8", "replace")
