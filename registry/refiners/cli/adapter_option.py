"""Reads `--adapter`: a name, what it looks at, how strongly it acts, and options of its own.

    NAME[=VALUE][:SCALE][,OPTION=VALUE...]

The value is a picture, several as `INPUT=PICTURE,INPUT=PICTURE`, or the file of an adapter that
reads one of the user's. The scale is the number behind the last colon, 1 if there is none.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from refiners.choose.lookup import find_adapter
from refiners.errors import UnknownNameError
from refiners.host.shell import quoted
from refiners.installed.inventory import Installed
from refiners.manifest.schema import AdapterSpec

METAVAR: Final = "NAME[=PICTURE|FILE][:SCALE][,OPTION=VALUE...]"
_OPTION: Final = re.compile(r"[A-Za-z][\w-]*=.*", re.DOTALL)
_OWN: Final = ("name", "model", "offline", "lock", "file")
"""What `load_adapter` takes itself, so no option of an adapter can be called that here."""
_WORDS: Final = {"true": True, "false": False, "none": None}


class AdapterOption(NamedTuple):
    """One `--adapter`."""

    adapter: Installed[AdapterSpec]
    name: str
    pictures: Mapping[str, Path]
    """By the names of the adapter's inputs; by no name where there is only one."""
    scale: float = 1.0
    file: str | None = None
    """The file of an adapter that reads one of the user's."""
    options: Mapping[str, Any] = {}
    """What its constructor is given."""

    def told(self, take: Callable[[Path], Any]) -> Any:
        """Returns something of the picture, or of each of several; None if there is none."""
        taken = {name: take(path) for name, path in self.pictures.items()}
        return taken.get("", taken or None)

    @property
    def arguments(self) -> dict[str, Any]:
        """What `load_adapter` is given beside the name."""
        return dict(self.options) | ({} if self.file is None else {"file": self.file})

    @property
    def facts(self) -> dict[str, Any]:
        """What is printed for programs."""
        facts = {"name": self.name, "picture": self.told(str), "scale": self.scale}
        return facts | ({"file": self.file} if self.file else {}) | (
            {"options": dict(self.options)} if self.options else {}
        )  # fmt: skip


def parse_adapter_option(text: str) -> AdapterOption:
    """Reads what follows `--adapter`; nothing is imported or fetched.

    Raises:
        click.BadParameter: It is written in another way, or a picture is not there.
        RefinersError: There is no such adapter.
    """
    head = re.split(r"[=,]", text, maxsplit=1)[0]
    name, scale = _scaled(head, is_whole=_is_known)
    if not name:
        raise click.BadParameter(f"{text!r} names no adapter; write controlnet-canny=edges.png")
    adapter = find_adapter(name)
    rest = text[len(head) :]
    value, options = "", rest.removeprefix(",").split(",") if rest.startswith(",") else []
    if rest.startswith("="):
        value, value_scale, options = _value(rest[1:], adapter.spec)
        if scale is not None and value_scale is not None:
            raise click.BadParameter(
                f"{text!r} has two scales; write {quoted(f'{name}={value}:{scale:g}')}"
            )
        scale = value_scale if scale is None else scale
    if scale is not None and not math.isfinite(scale):
        raise click.BadParameter(f"the scale of {name} is {scale}; write a number, {name}:0.8")
    given = _options(name, options)
    if adapter.spec.file is not None:
        if not value and given.get("file") is None:
            raise click.BadParameter(f"{name} needs a file; write {name}=style.safetensors:0.8")
        file = value or str(given.pop("file"))
        return AdapterOption(adapter, name, {}, 1.0 if scale is None else scale, file, given)
    pictures = _pictures(value, adapter.spec)
    _check_pictures(name, pictures, adapter.spec)
    return AdapterOption(adapter, name, pictures, 1.0 if scale is None else scale, None, given)


def _is_known(name: str) -> bool:
    try:
        find_adapter(name)
    except UnknownNameError:
        return False
    return True


def _scaled(
    text: str, is_whole: Callable[[str], bool] = lambda text: Path(text).is_file()
) -> tuple[str, float | None]:
    """Splits `something:0.8`, unless the whole is a name already."""
    value, colon, number = text.rpartition(":")
    try:
        scale = float(number)
    except ValueError:  # the colon belongs to the path, or to the name
        return text, None
    return (text, None) if not colon or is_whole(text) else (value, scale)


def _value(text: str, spec: AdapterSpec) -> tuple[str, float | None, Sequence[str]]:
    """Splits what follows the equals sign into value, scale and options."""
    value, scale = _scaled(text)
    if not text or Path(value).is_file():
        return value, scale, ()
    parts = text.split(",")
    is_named = spec.file is None and _OPTION.fullmatch(parts[0]) is not None
    for index, part in enumerate(parts):
        if index and not _is_part_of_value(part, is_named, spec):
            options = parts[index:]
            if all(map(_OPTION.fullmatch, options)):
                return *_scaled(",".join(parts[:index])), options
        elif (scaled := _scaled(part))[1] is not None and all(
            map(_OPTION.fullmatch, parts[index + 1 :])
        ):
            return ",".join((*parts[:index], scaled[0])), scaled[1], parts[index + 1 :]
    return text, None, ()


def _is_part_of_value(part: str, is_named: bool, spec: AdapterSpec) -> bool:
    if not _OPTION.fullmatch(part):
        return True  # a comma in the name of a file
    return is_named and (not spec.input or part.partition("=")[0] in spec.input)


def _pictures(text: str, spec: AdapterSpec) -> dict[str, Path]:
    """Reads `PICTURE`, or `INPUT=PICTURE,INPUT=PICTURE` unless that is the name of a file."""
    if not text:
        return {}
    named = [part.partition("=") for part in text.split(",")]
    if Path(text).is_file() or not all(input and path for input, _, path in named):
        return {"": Path(text)}
    return {input: Path(path) for input, _, path in named}


def _check_pictures(name: str, pictures: Mapping[str, Path], spec: AdapterSpec) -> None:
    for input, picture in pictures.items():
        if input and spec.input and input not in spec.input:
            close = get_close_matches(input, spec.input, n=1)
            known = f"did you mean {close[0]}" if close else f"it has {', '.join(spec.input)}"
            raise click.BadParameter(f"{name} has no input {input}; {known}")
        if not picture.is_file():
            raise click.BadParameter(f"there is no picture {picture}")


def _options(name: str, parts: Sequence[str]) -> dict[str, Any]:
    """Reads `OPTION=VALUE` parts; numbers, true, false and none are not texts."""
    options: dict[str, Any] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        key = key.strip().replace("-", "_")
        if not (equals and key.isidentifier()):
            raise click.BadParameter(
                f"{part!r} is not an option of {name}; write {name},OPTION=VALUE"
            )
        if key in options or key in _OWN[:-1]:
            what = "is given twice" if key in options else "is not an option of adapters"
            raise click.BadParameter(f"{key} {what}; see refiners info {name}")
        options[key] = _literal(value)
    return options


def _literal(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        value = json.loads(text, parse_constant=lambda word: word)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, dict) else value
