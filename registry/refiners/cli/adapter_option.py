"""Parses `--adapter`: a name or a file, a picture, a scale, and options of the adapter.

    NAME|FILE[=VALUE][:SCALE][,OPTION=VALUE...]

A file is a path with a separator or the ending of a file of weights, or `hf:organisation/name`. The
value is a picture, or several pictures as `INPUT=PICTURE,INPUT=PICTURE`; after the name of an
adapter that needs a file, it is the file. The scale is the number after the last colon; 1 by
default. Instead of a number there may be numbers by place or a schedule, see `scale_option`. The
option `scale=0.8` is another way to write the scale. The option `preprocess=true` makes the
adapter's input from the picture, `preprocess=NAME` does so with the preprocessor of that name.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from refiners.choose.lookup import find_adapter
from refiners.choose.policy import Guard
from refiners.cli.constructor_option import parse_options
from refiners.cli.scale_option import split_scale, written_scale
from refiners.errors import UnknownNameError
from refiners.host.shell import quoted
from refiners.hub.client import Hub
from refiners.installed.inventory import Installed
from refiners.manifest.schema import AdapterSpec
from refiners.sources.given import is_file
from refiners.sources.user_file import with_file

METAVAR: Final = "NAME|FILE[=PICTURE|FILE][:SCALE][,OPTION=VALUE...]"
_OPTION: Final = re.compile(r"[A-Za-z][\w-]*=.*", re.DOTALL)


class AdapterOption(NamedTuple):
    """The value of one `--adapter`."""

    adapter: Installed[AdapterSpec]
    name: str
    pictures: Mapping[str, Path]
    """The pictures by the names of the adapter's inputs; a single one by an empty name."""
    scale: Any = 1.0
    """A number, numbers by place, or pairs of progress and scale, as `Condition` takes it."""
    file: str | None = None
    """The user's file, for an adapter that reads one."""
    options: Mapping[str, Any] = {}
    """The arguments of the adapter's constructor."""
    preprocess: bool | str = False
    """Whether the adapter's preprocessor makes its input from the picture, or which one does."""

    def value(self, convert: Callable[[Path], Any]) -> Any:
        """Returns the converted picture, or several by name; None without a picture."""
        converted = {name: convert(path) for name, path in self.pictures.items()}
        return converted.get("", converted or None)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `load_adapter` other than the name."""
        return dict(self.options) | ({} if self.file is None else {"file": self.file})

    @property
    def facts(self) -> dict[str, Any]:
        """The facts that `--json` prints."""
        facts = {"name": self.name, "picture": self.value(str), "scale": self.scale}
        facts |= {"file": self.file} if self.file else {}
        facts |= {"preprocess": self.preprocess} if self.preprocess else {}
        return facts | ({"options": dict(self.options)} if self.options else {})


def parse_adapter_option(text: str, *, offline: bool | None = None) -> AdapterOption:
    """Parses the value of `--adapter`, without importing anything.

    Of a file, the header is read to find the adapter that reads it.

    Args:
        text: The value.
        offline: Whether to stay offline; None reads the environment.

    Raises:
        click.BadParameter: The value is malformed, or a picture does not exist.
        RefinersError: The adapter is not installed, or no adapter reads the file.
    """
    text, by_place = split_scale(text)
    head = _file_in(text)
    is_name = not head
    head = head or re.split(r"[=,]", text, maxsplit=1)[0]
    name, scale = _scaled(head, is_whole=_is_known if is_name else _exists)
    if not name:
        raise click.BadParameter(
            f"{text!r} does not name an adapter; write controlnet-canny=edges.png"
        )
    if is_name:
        _check_scale(name)
    adapter = find_adapter(name) if is_name else _reader_of(name, offline)
    needs_file = is_name and adapter.spec.file is not None and not adapter.spec.file.optional
    rest = text[len(head) :]
    value, options = "", rest.removeprefix(",").split(",") if rest.startswith(",") else []
    if rest.startswith("="):
        value, value_scale, options = _value(rest[1:], adapter.spec, needs_file)
        if scale is not None and value_scale is not None:
            raise click.BadParameter(
                f"{text!r} has two scales; write {quoted(f'{name}={value}:{scale:g}')}"
            )
        scale = value_scale if scale is None else scale
    if by_place is not None and scale is not None:
        raise click.BadParameter(
            f"{name} has two scales; write {quoted(f'{name}:{written_scale(by_place)}')}"
        )
    scale = scale if by_place is None else by_place
    parsed = parse_options(name, options)
    if "scale" in parsed:
        if scale is not None:
            raise click.BadParameter(f"{name} has two scales; write {quoted(f'{name}:0.8')}")
        scale = _number(name, parsed.pop("scale"))
    if isinstance(scale, float) and not math.isfinite(scale):
        raise click.BadParameter(
            f"the scale of {name} is {scale}; write a finite number, {name}:0.8"
        )
    preprocess = _preprocess(name, parsed.pop("preprocess", False))
    file = None if is_name else name
    if is_name and adapter.spec.file is not None and "file" in parsed:
        file = str(parsed.pop("file"))
    elif needs_file:
        if not value:
            raise click.BadParameter(f"{name} needs a file; write {name}=style.safetensors:0.8")
        value, file = "", value
    pictures = _pictures(value, adapter.spec)
    _check_pictures(name, pictures, adapter.spec)
    label = name if is_name else f"{adapter.dist}:{adapter.name}"
    scale = 1.0 if scale is None else scale
    return AdapterOption(adapter, label, pictures, scale, file, parsed, preprocess)


def parse_adapters(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[AdapterOption, ...]:
    """Parses the values of `--adapter`, as the callback of the option."""
    offline = ctx.params.get("offline") or None
    return tuple(parse_adapter_option(value, offline=offline) for value in values)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise click.BadParameter(f"{value!r} is not a scale of {name}; write {name},scale=0.8")
    return float(value)


def _check_scale(name: str) -> None:
    """Checks that a name is not another one, or a file, with a malformed scale.

    Raises:
        click.BadParameter: The text after the colon is not a scale.
    """
    front, colon, _ = name.partition(":")
    if colon and not _is_known(name) and (is_file(front) or _is_known(front)):
        wrong = name.removeprefix(front)
        raise click.BadParameter(f"{wrong} is not a scale of {front}; write {front}:0.8")


def _file_in(text: str) -> str:
    """Returns the path or address at the beginning of a text; empty if it begins with a name.

    A path may have equals signs and commas, if it exists.
    """
    ends = [*(match.start() for match in re.finditer("[=,]", text)), len(text)]
    for end in reversed(ends):
        path = _scaled(text[:end], is_whole=_exists)[0]
        if is_file(path) and _exists(path):
            return text[:end]
    head = text[: ends[0]]
    return head if is_file(_scaled(head, is_whole=_exists)[0]) else ""


def _exists(path: str) -> bool:
    return os.path.exists(os.path.expanduser(path))


def _reader_of(file: str, offline: bool | None) -> Installed[AdapterSpec]:
    guard = Guard.from_environment()
    hub = Hub.from_environment(offline, largest=guard.largest)
    return with_file(None, file, hub, guard=guard)


def _preprocess(name: str, value: Any) -> bool | str:
    if isinstance(value, bool | str) and value != "":
        return value
    raise click.BadParameter(
        f"preprocess is true or a name; write {name}=photo.png,preprocess=true"
    )


def with_preprocess(options: Sequence[AdapterOption]) -> tuple[AdapterOption, ...]:
    """Preprocesses the pictures of every adapter that declares a preprocessor.

    Raises:
        click.UsageError: No adapter with a picture declares one.
    """
    declared = [
        bool(option.pictures)
        and any(given.preprocessor for given in option.adapter.spec.input.values())
        for option in options
    ]
    if not any(declared):
        raise click.UsageError(
            "--preprocess: no adapter of this command makes its input from a picture; refiners "
            "info NAME shows the preprocessor of an adapter."
        )
    return tuple(
        option._replace(preprocess=option.preprocess or is_declared)
        for option, is_declared in zip(options, declared, strict=True)
    )


def _is_known(name: str) -> bool:
    try:
        find_adapter(name)
    except UnknownNameError:
        return False
    return True


def _scaled(
    text: str, is_whole: Callable[[str], bool] = lambda text: Path(text).is_file()
) -> tuple[str, float | None]:
    """Splits `VALUE:0.8`, unless the whole text is a name."""
    value, colon, number = text.rpartition(":")
    try:
        scale = float(number)
    except ValueError:  # the colon belongs to the path, or to the name
        return text, None
    return (text, None) if not colon or is_whole(text) else (value, scale)


def _value(
    text: str, spec: AdapterSpec, needs_file: bool
) -> tuple[str, float | None, Sequence[str]]:
    """Splits the text after the equals sign into value, scale and options."""
    value, scale = _scaled(text)
    if not text or Path(value).is_file():
        return value, scale, ()
    parts = text.split(",")
    is_named = not needs_file and _OPTION.fullmatch(parts[0]) is not None
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
        return True  # a comma in a file name
    return is_named and (not spec.input or part.partition("=")[0] in spec.input)


def _pictures(text: str, spec: AdapterSpec) -> dict[str, Path]:
    """Parses `PICTURE`, or `INPUT=PICTURE,INPUT=PICTURE` unless a file has that name."""
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
            known = f"did you mean {close[0]}?" if close else f"it has {', '.join(spec.input)}"
            raise click.BadParameter(f"{name} has no input {input}; {known}")
        if not picture.is_file():
            raise click.BadParameter(f"the picture {picture} does not exist")
