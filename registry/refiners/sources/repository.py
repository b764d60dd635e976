"""A model that is a repository of the Hub and no package's: `hf:organisation/name@revision/path`.

The revision may be left out, and so may the path, of a single file or of the folder that holds the
model. What a branch is at the first load is written down, and later loads are held to it; a commit
in the name says the same to everybody.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from refiners.choose.lock import LockedPlugin, lock_command, named, read_lock
from refiners.choose.policy import Guard
from refiners.errors import (
    LockError,
    PolicyError,
    UnsupportedError,
)
from refiners.hub.client import Hub
from refiners.hub.listing import contents_of, means
from refiners.hub.metadata import Contents
from refiners.installed.inventory import Installed
from refiners.manifest.address import PREFIX, parse_address
from refiners.manifest.schema import FILE_NAME, UNKNOWN, ModelSpec, WeightsFile

_NEEDED: Final = ("scheduler", "tokenizer", "text_encoder", "unet", "vae")
_PARTS: Final = (*_NEEDED, "text_encoder_2", "tokenizer_2")
_STEMS: Final = ("diffusion_pytorch_model", "model")
_KINDS: Final[dict[str | None, tuple[str, ...]]] = {
    None: ("", ".fp16", ".bf16"),
    "float16": (".fp16", "", ".bf16"),
    "bfloat16": (".bf16", "", ".fp16"),
}
"""How files in each precision are marked, in the order in which they are looked for."""
_TEXTS: Final = (".json", "merges.txt")
_PICKLES: Final = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


class RepositoryModel(Installed[ModelSpec], frozen=True):
    """The files of one repository that make a model; its version is the commit."""

    @property
    def id(self) -> str:
        """How it was asked for."""
        return self.name


def find_repository(
    what: str, hub: Hub, dtype: str | None = None, guard: Guard | None = None
) -> RepositoryModel:
    """Finds out which files of a repository make the model, at which commit.

    Args:
        what: As `parse_address` reads it.
        hub: Asked once for the list of files; what it said then is what holds from then on.
        dtype: The precision whose files go first; those of full precision by default.
        guard: The rules that hold, consulted before anybody is asked.

    Raises:
        OptionError: It is written in another way.
        NetworkError, IntegrityError: The Hub does not say, or contradicts itself.
        UnsupportedError: It holds no model that is known here.
        PolicyError: Its weights are pickles, whose hashes nobody has pinned, or a rule refuses it.
    """
    address = parse_address(what)
    source = f"{PREFIX}{address.repository}"
    address, contents = contents_of(what, address, hub, guard)
    chosen = {
        path: WeightsFile(
            source=source,
            file=path,
            revision=contents.commit,
            sha256=contents.files[path].sha256,
            size=contents.files[path].size,
            license=contents.license,
            format=_format(path),
        )
        for path in choose(what, address.path, contents, dtype)
    }
    return _repository(what, contents.commit, chosen)


def held_repository(
    what: str,
    hub: Hub,
    lock: str | Path | None = None,
    dtype: str | None = None,
    guard: Guard | None = None,
) -> RepositoryModel:
    """Does what `find_repository` does, or takes what a lock has where one is named.

    Raises:
        LockError: It is not in the lock.
    """
    path = named(lock)
    if path is None:
        return find_repository(what, hub, dtype, guard)
    parse_address(what)
    found = read_lock(path).get("model", what)
    if found is None:
        raise LockError(f"{what} is not in {path}.", hint=f"Run {lock_command(path, what)}.")
    return of_locked(found, path)


def of_locked(locked: LockedPlugin, path: Path) -> RepositoryModel:
    """Returns a repository as a lock has it; nobody is asked.

    Raises:
        LockError: The lock does not pin all that it should, or pins something else.
    """
    names = [PurePosixPath(file.file or "").name for file in locked.file]
    is_whole = len(locked.file) == 1 or "model_index.json" in names
    if not is_whole or not all(
        file.revision == locked.version and means(locked.id, file) for file in locked.file
    ):
        raise LockError(
            f"{path} does not pin all files of {locked.id}, or files of something else.",
            hint=f"Take it from version control, or run {lock_command(path, locked.id)}.",
        )
    files = {
        one.file or "": WeightsFile(
            source=one.source,
            file=one.file,
            revision=one.revision or UNKNOWN,
            sha256=one.sha256,
            size=one.size,
            license=one.license or "",
            format=_format(one.file or ""),
        )
        for one in locked.file
    }
    return _repository(locked.id, locked.version, files)


def choose(what: str, path: str, contents: Contents, dtype: str | None) -> tuple[str, ...]:
    """Returns the files that are needed, those that say what it is before those of weights.

    Args:
        what: How it was asked for, for messages.
        path: A file or a folder in the repository.
        contents: What the repository holds.
        dtype: The precision whose files go first; those of full precision by default.

    Raises:
        UnsupportedError: It holds no model that is known here.
        PolicyError: Its weights are pickles.
    """
    files = {name for name in contents.files if re.fullmatch(FILE_NAME, name)}
    if path in files and path.endswith(_PICKLES):
        raise _pickled(what, path)
    if path in files and path.endswith(".safetensors"):
        return (path,)
    folder = f"{path}/" if path else ""
    inside = {name.removeprefix(folder) for name in files if name.startswith(folder)}
    parts = {PurePosixPath(name).parts[0] for name in inside if "/" in name}
    if "model_index.json" not in inside or not parts.issuperset(_NEEDED):
        raise _unknown_layout(what, path, files)
    texts = ["model_index.json"]
    weights: list[str] = []
    for part in (one for one in _PARTS if one in parts):
        there = {n.removeprefix(f"{part}/") for n in inside if n.startswith(f"{part}/")}
        texts += [
            f"{part}/{name}"
            for name in sorted(there)
            if name.endswith(_TEXTS) and ".index." not in name and "/" not in name
        ]
        if not part.startswith(("tokenizer", "scheduler")):
            weights += [f"{part}/{name}" for name in _weights(what, part, there, dtype)]
    return tuple(f"{folder}{name}" for name in (*texts, *weights))


def _weights(what: str, part: str, there: set[str], dtype: str | None) -> tuple[str, ...]:
    """Returns the file of weights of a part, or its index and the files that it stands for."""
    for kind in _KINDS.get(dtype, _KINDS[None]):
        for stem in _STEMS:
            if (single := f"{stem}{kind}.safetensors") in there:
                return (single,)
            if (index := f"{stem}.safetensors.index{kind}.json") in there:
                return (index, *_shards(stem, kind, there))
    pickles = sorted(name for name in there if name.endswith(_PICKLES))
    if pickles:
        raise _pickled(what, f"{part}/{pickles[0]}")
    raise UnsupportedError(
        f"{what} has no weights in {part}/ that can be read; "
        f"it has {', '.join(sorted(there)) or 'nothing'}.",
        hint="Ask for another revision, or load a model by name: refiners list.",
    )


def _shards(stem: str, kind: str, there: set[str]) -> Iterator[str]:
    number = r"-\d{5}-of-\d{5}"
    either = rf"{stem}({re.escape(kind)}{number}|{number}{re.escape(kind)})\.safetensors"
    yield from sorted(name for name in there if re.fullmatch(either, name))


def _pickled(what: str, path: str) -> PolicyError:
    return PolicyError(
        f"{what} has {path} as a pickle only, whose hash nobody has pinned; it could run any code.",
        hint="Ask for a revision with safetensors, or fetch the folder yourself, if you trust "
        "it, and load its path.",
    )


def _unknown_layout(what: str, path: str, files: Iterable[str]) -> UnsupportedError:
    repository = what.removesuffix(f"/{path}") if path else what
    single = sorted(n for n in files if "/" not in n and n.endswith(".safetensors"))
    there = sorted({PurePosixPath(name).parts[0] for name in files})
    return UnsupportedError(
        f"{what} is no model as diffusers publishes Stable Diffusion 1.5 and XL (model_index.json, "
        f"{', '.join(_NEEDED)}); {repository} has {', '.join(there) or 'nothing'}.",
        hint=f"For one of its files: {repository}/{single[0]}."
        if single
        else "An adapter is loaded by name: refiners list.",
    )


def _format(path: str) -> Literal["safetensors", "json", "text"]:
    suffix = PurePosixPath(path).suffix
    return "json" if suffix == ".json" else "text" if suffix == ".txt" else "safetensors"


def _repository(what: str, commit: str, files: Mapping[str, WeightsFile]) -> RepositoryModel:
    spec = ModelSpec(
        factory="refiners_core.models.formats.open:open_model",
        summary="A model on the Hub",
        core_api=">=1.0,<2",
        family="diffusers",
        weights=dict(_labelled(files)),
    )
    return RepositoryModel(what, "", commit, Path(), spec)


def _labelled(files: Mapping[str, WeightsFile]) -> Iterator[tuple[str, WeightsFile]]:
    """Yields files by names that a manifest could have given them, each another."""
    used: Counter[str] = Counter()
    for path, file in files.items():
        label = re.sub(r"[^a-z0-9]+", "-", path.lower()).strip("-")
        used[label] += 1
        yield f"{label}-{used[label]}" if used[label] > 1 else label, file
