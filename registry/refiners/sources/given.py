"""Locates a file that a user names, and reads what is known of it without a tensor."""

from __future__ import annotations

import os
import posixpath
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import msgspec

from refiners.choose.policy import Guard
from refiners.errors import MissingError, Notice, OptionError, PolicyError, UnsupportedError
from refiners.host.shell import quoted
from refiners.hub.client import Hub
from refiners.hub.tensor_header import Header
from refiners.manifest.address import PREFIX, check_not_url, parse_address
from refiners.manifest.license_terms import terms_of
from refiners.manifest.schema import WeightsFile
from refiners.recognition.note import notes_of
from refiners.recognition.recogniser import Evidence
from refiners.sources.listing import contents_of
from refiners.sources.place import (
    INDEX,
    PICKLES,
    SUFFIX,
    WEIGHTS,
    HubPlace,
    LocalPlace,
    Place,
    header_at,
    read_table,
)

CONFIGS: Final = ("config.json", "adapter_config.json")
"""The files beside weights in which diffusers and PEFT keep a configuration."""
_SHARD: Final = re.compile(r"-\d{5}-of-\d{5}(\.\w+)?\.\w+$")
_TWIN: Final = re.compile(r"\.(fp16|bf16|fp32|non_ema)(?=\.\w+$|\.safetensors\.index)")
_STATE: Final = re.compile(
    r"(^|/)(optimizer|scheduler|scaler|training_args|rng_state|random_states)[^/]*$"
)
"""Files of a training run that hold no weights."""


@dataclass(frozen=True)
class GivenFile:
    """A file of a user, where it lies, and its header.

    Args:
        given: The file as the user wrote it.
        place: The folder of the file.
        name: Its path in the folder.
        header: Its header; None if only its bytes would show it.
        config: The fields of the configurations beside it.
    """

    given: str
    place: Place
    name: str
    header: Header | None
    config: Mapping[str, Any]

    @property
    def file(self) -> WeightsFile:
        """The file, with the pins that are known.

        A header may state a licence that forbids commercial use, but not one that permits it.
        """
        file = self.place.file(self.name)
        stated = notes_of(self.evidence).get("license", "")
        if file.terms or not terms_of(stated):
            return file
        return msgspec.structs.replace(file, license=file.license or stated, commercial=False)

    @property
    def written(self) -> str:
        """The file as a user writes it, where `given` may be its folder."""
        return self.given if self.given.endswith(WEIGHTS) else self.place.written(self.name)

    @property
    def evidence(self) -> Evidence:
        """The facts that decide which adapter reads it."""
        header = Header({}) if self.header is None else self.header
        return Evidence(header, header.metadata, self.config)


def is_file(what: object) -> bool:
    """Whether an argument is a path or an address, rather than the name of an adapter.

    A name has neither a separator of folders nor the ending of a file of weights.
    """
    if isinstance(what, os.PathLike):
        return True
    return isinstance(what, str) and (
        what.startswith((PREFIX, "~"))
        or what.lower().endswith(WEIGHTS)
        or any(mark in what for mark in ("/", os.sep))
    )


def locate(given: str, hub: Hub, guard: Guard | None = None) -> tuple[Place, str]:
    """Returns the folder of a file, and its path there; an empty path for a folder.

    Args:
        given: A path, or `hf:organisation/name[@revision][/path]`.
        hub: The Hub, which is asked once for the list of a repository.
        guard: The policy rules, checked before the Hub is asked.

    Raises:
        OptionError, MissingError: The file does not exist, or the path is a URL.
        NetworkError, IntegrityError: The Hub does not list the repository.
        PolicyError: A rule refuses the organisation.
    """
    check_not_url(given)
    if given.startswith(PREFIX):
        return _on_hub(given, hub, guard)
    path = Path(given).expanduser()
    if os.path.isdir(path):
        return LocalPlace(Path(given)), ""
    if os.path.isfile(path):
        folder, name = LocalPlace(Path(given).parent), path.name
        return folder, _readable(given, folder, name)
    raise _missing(path)


def examine(given: str, place: Place, name: str, hub: Hub) -> GivenFile:
    """Reads the header of a file and the configurations beside it.

    Raises:
        IntegrityError: The file is not a safetensors file.
        NetworkError: The Hub does not answer.
    """
    header = None if name.endswith(PICKLES) else header_at(place, name, hub)
    config: dict[str, Any] = {}
    folder = posixpath.dirname(name)
    for path in (posixpath.join(folder, config_name) for config_name in CONFIGS):
        if place.has(path):
            config |= read_table(place.file(path), hub)
    return GivenFile(given, place, name, header, config)


def candidates(place: Place) -> list[list[str]]:
    """Returns the files of a folder that may be an adapter, by depth from the top.

    Of twins in several formats or precisions, the safetensors file in full precision remains.
    """
    names = {*place.names}
    stems = {name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)}
    kept = [
        name
        for name in names
        if name.endswith(WEIGHTS)
        and not _SHARD.search(name)
        and not _STATE.search(name)
        and not (name.endswith(PICKLES) and posixpath.splitext(name)[0] in stems)
        and not (_TWIN.search(name) and _TWIN.sub("", name) in names)
    ]
    depths = sorted({name.count("/") for name in kept})
    return [sorted(name for name in kept if name.count("/") == depth) for depth in depths]


def is_model_folder(what: str) -> bool:
    """Whether a path is the folder of a model: one with the index of a pipeline, or no weights."""
    folder = Path(what).expanduser()
    if not folder.is_dir():
        return False
    return (folder / "model_index.json").is_file() or not candidates(LocalPlace(folder))


def check_not_model(given: str, place: Place) -> None:
    """Refuses the folder of a whole model.

    Raises:
        UnsupportedError: The folder has the index of a pipeline.
    """
    if place.has("model_index.json"):
        raise UnsupportedError(
            f"{given} is a whole model, not an adapter.",
            hint=f'Load it: refiners.load_model("{given}").',
        )


def pickle_refusal(given: str) -> PolicyError:
    """Returns the error for a pickle without a pinned hash."""
    from refiners_core.weights import rewriting_hint

    return PolicyError(
        f"{given} is a pickle, which could run any code; only safetensors files are read.",
        hint=rewriting_hint(given, f"{posixpath.splitext(given)[0]}{SUFFIX}"),
    )


def some(names: Iterable[str]) -> str:
    """Returns the first names of a list, for a message."""
    names = [*names]
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "") or "no safetensors files"


def _readable(given: str, place: Place, name: str) -> str:
    """Returns the name of a file, or of the safetensors twin of a pickle.

    Raises:
        OptionError: The file has the ending of neither.
    """
    if name.endswith((SUFFIX, INDEX)):
        return name
    if not name.endswith(PICKLES):
        stem, ending = posixpath.splitext(name)
        lower = f"{stem}{ending.lower()}"
        raise OptionError(
            f"{given} is not a safetensors file.",
            hint=f"Rename it to {lower}: endings are in lower case."
            if ending != ending.lower() and lower.endswith(WEIGHTS)
            else "Use a file that ends in .safetensors.",
        )
    twin = f"{posixpath.splitext(name)[0]}{SUFFIX}"
    if not place.has(twin):
        return name
    warnings.warn(
        f"{given} is a pickle; {posixpath.basename(twin)} beside it is read instead.",
        Notice,
        stacklevel=6,
    )
    return twin


def _on_hub(given: str, hub: Hub, guard: Guard | None) -> tuple[Place, str]:
    address = parse_address(given)
    address, contents = contents_of(given, address, hub, guard)
    path = address.path
    if path in contents.files:
        folder, name = posixpath.split(path)
        place = HubPlace(address._replace(path=folder), contents)
        return place, _readable(given, place, name)
    place = HubPlace(address, contents)
    if not path or place.names:
        return place, ""
    if path.endswith(PICKLES):
        folder, name = posixpath.split(path)
        place = HubPlace(address._replace(path=folder), contents)
        if (twin := _readable(given, place, name)) != name:
            return place, twin
        raise pickle_refusal(given)
    close = get_close_matches(path, [n for n in contents.files if n.endswith(WEIGHTS)], n=1)
    whole = HubPlace(address._replace(path=""), contents)
    weights = [name for depth in candidates(whole) for name in depth]
    hint = f"Did you mean {close[0]}?" if close else f"It has {some(weights)}."
    raise MissingError(f"{address.repository} has no file {path}.", hint=hint)


def _missing(path: Path) -> OptionError:
    if os.path.islink(path) and not os.path.exists(path):
        return OptionError(
            f"{path} is a link to {os.readlink(path)}, which does not exist.",
            hint="Give the file itself, or make the link again.",
        )
    if os.path.exists(path):
        return OptionError(
            f"{path} is neither a file nor a folder.", hint="Use a file that ends in .safetensors."
        )
    try:
        names = sorted(file.name for file in path.parent.iterdir() if file.suffix == SUFFIX)
    except OSError:
        names = []
    close: Sequence[str] = get_close_matches(path.name, names, n=1)
    return OptionError(
        f"the file {path} does not exist.",
        hint=f"Did you mean {quoted(path.with_name(close[0]))}?"
        if close
        else f"The folder {path.parent} has {some(names)}."
        if path.parent.is_dir()
        else f"The folder {path.parent} does not exist either.",
    )
