"""Opens models without a name: a folder, a file, a repository, or a live diffusers pipeline."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from refiners.choose.admission import guarded
from refiners.choose.lock import named
from refiners.choose.lookup import find_model
from refiners.choose.policy import Guard
from refiners.errors import OptionError
from refiners.hub.client import Hub
from refiners.hub.shapes import header_of
from refiners.hub.tensor_header import Header, read_header
from refiners.installed.distribution import DISTRIBUTION
from refiners.installed.factory import check_configurations, open_published
from refiners.installed.inventory import Installed
from refiners.manifest.address import check_not_url
from refiners.manifest.folder_layout import TOP
from refiners.manifest.schema import FamilySpec, WeightsFile
from refiners.recognition.recogniser import Evidence
from refiners.sources.family import (
    family_of_file,
    family_of_folder,
    files_below,
    json_of,
    top_of,
)
from refiners.sources.fetch import announce_terms, fetch_all, fetch_source
from refiners.sources.links import linked
from refiners.sources.origin import LocalModel, NamedModel, originating
from refiners.sources.place import SUFFIX
from refiners.sources.recognition import hint_for, identify_kind
from refiners.sources.repository import held_repository

if TYPE_CHECKING:
    import torch

    from refiners_core import Model
    from refiners_core.models.clip.tokenizer import ClipTokenizer
    from refiners_core.models.diffusion import LatentDiffusion

_MARKS: Final = ("/", os.sep, ".safetensors")
"""The parts that a path contains and a name does not."""
_READS: Final = {"vocab": "vocab", "merges": "merges"}


def is_local(what: object) -> bool:
    """Whether an argument is a path or a pipeline, rather than a name or an address."""
    if isinstance(what, str):
        return not what.startswith("hf:") and any(mark in what for mark in _MARKS)
    return isinstance(what, os.PathLike) or _is_pipeline(what)


def open_local(
    what: Any,
    *,
    device: torch.device | None,
    dtype: torch.dtype | None,
    offline: bool | None,
) -> LatentDiffusion:
    """Opens a folder, a single file or a live pipeline.

    A model of any installed family is opened, and typed as the other models. A single file of
    Stable Diffusion has no vocabulary: it is read from a folder `tokenizer` beside the file, or
    fetched from the repository of the released model.

    Raises:
        OptionError: A device or a dtype is given for a pipeline, whose tensors are shared, or the
            path is a URL.
        ModelError, WeightsError: The file is unreadable, or not a known model.
        NetworkError, IntegrityError, CacheError: The vocabulary cannot be fetched.
    """
    if _is_pipeline(what):
        from refiners_core.models.formats.pipeline import from_pipeline

        if device is not None or dtype is not None:
            raise OptionError(
                "a pipeline's tensors are shared, so they keep their device and dtype.",
                hint="Leave device= and dtype= out, or call pipe.to(...) first.",
            )
        return from_pipeline(what)
    check_not_url(str(what))
    path = Path(what)
    family = _family_at(path)
    origin = LocalModel.of(path, str(dtype).removeprefix("torch."))
    if family is not None:
        guarded(family, None)
        model = open_published(family, path, dtype=dtype, device=device)
        return originating(cast("LatentDiffusion", model), origin)
    from refiners_core.models.formats.open import open_model

    if path.suffix == SUFFIX and path.is_file():
        _check_whole(str(what), read_header(path))

    def vocabulary(base: str) -> ClipTokenizer:
        try:
            return _vocabulary(base, offline)
        except Exception as error:
            error.add_note(f"Or put the tokenizer's folder beside {what}, to fetch nothing.")
            raise

    model = open_model(path, tokenizer=vocabulary, dtype=dtype, device=device)
    return originating(cast("LatentDiffusion", model), origin)


def outline_local(path: Path) -> Model:
    """Opens a folder or a single file for its structure; no vocabulary is fetched.

    Raises:
        ModelError, WeightsError: The file is unreadable, or not a known model.
    """
    from refiners_core.models.formats.open import open_model

    family = _family_at(path)
    if family is None:
        return open_model(path)
    guarded(family, None)
    return open_published(family, path, dtype=None, device=None)


def open_repository(
    what: str,
    *,
    device: torch.device | None,
    dtype: torch.dtype | None,
    offline: bool | None,
    lock: str | Path | None,
) -> LatentDiffusion:
    """Fetches and opens a model in a repository of the Hub.

    Configurations are fetched first, so that no weights of an unknown model are fetched.

    Raises:
        OptionError: The address is malformed.
        UnsupportedError, ModelError: The repository does not hold a known model.
        LockError: The lock does not name the repository.
        NetworkError, IntegrityError, CacheError: The files cannot be fetched as pinned.
        PolicyError: A rule refuses the repository, or its weights are pickles.
    """
    guard = Guard.from_environment(is_locked=named(lock) is not None)
    hub = Hub.from_environment(offline, largest=guard.largest)
    repository = held_repository(what, hub, lock, str(dtype).removeprefix("torch."), guard)
    files = {file.file or "": file for file in repository.spec.weights.values()}
    guard.admit(repository, files.values())
    announce_terms(repository.id, files.values())
    if len(files) == 1:
        model = _single(what, files, hub, guard, offline, dtype=dtype, device=device)
        return originating(cast("LatentDiffusion", model), NamedModel(repository))
    texts = {path: file for path, file in files.items() if file.format != "safetensors"}
    top = top_of(files)
    assert top is not None, "the files are those of a family"
    stated = linked(fetch_all(texts, hub), hub.receipts.folder) / top
    below = "" if top == TOP else f"{top}/"
    names = [name.removeprefix(below) for name in files]
    family = family_of_folder(what, names, lambda name: json_of(stated / name))
    assert family is not None, "a family chose the files"
    guard.admit(family)
    check_configurations(family, stated)
    folder = linked(fetch_all(files, hub), hub.receipts.folder) / top
    model = open_published(family, folder, dtype=dtype, device=device)
    return originating(cast("LatentDiffusion", model), NamedModel(repository))


def _single(
    what: str,
    files: Mapping[str, WeightsFile],
    hub: Hub,
    guard: Guard,
    offline: bool | None,
    **options: Any,
) -> Model:
    """Opens the one file of a repository that is a whole model."""
    from refiners_core.models.formats.open import open_model

    (name, file), *_ = files.items()
    header = header_of(file, hub)
    family = family_of_file(what, lambda: header)
    if family is not None:
        guard.admit(family)
        return open_published(family, fetch_all(files, hub)[name], **options)
    if header:
        _check_whole(what, header)
    path = fetch_all(files, hub)[name]
    return open_model(path, tokenizer=lambda base: _vocabulary(base, offline), **options)


def _family_at(path: Path) -> Installed[FamilySpec] | None:
    """Returns the family that opens a folder or a file; None for those that only the core knows."""
    if path.is_dir():
        names = files_below(path)
        return family_of_folder(str(path), names, lambda name: json_of(path / name))
    if path.suffix == SUFFIX and path.is_file():
        return family_of_file(str(path), lambda: read_header(path))
    return None


def _check_whole(what: str, header: Header) -> None:
    """Checks by its header that a file is a whole model.

    Raises:
        ModelError: The file is of another kind; the message names it if it is known.
    """
    from refiners_core.errors import ModelError
    from refiners_core.models.formats.open import recognised

    try:
        recognised(what, header)
    except ModelError as error:
        fits = identify_kind(Evidence(header, header.metadata))
        if not fits:
            raise
        as_adapter = f'It goes on a model as an adapter: refiners.load_adapter("{what}", model).'
        hint = as_adapter if fits[0].is_readable else hint_for(what, fits)
        raise ModelError(f"{what} is {fits[0]}.", hint=hint) from error


def _is_pipeline(what: object) -> bool:
    # a copy of the core's check, because importing the core's would import torch
    return isinstance(getattr(what, "components", None), Mapping)


def _vocabulary(base: str, offline: bool | None) -> ClipTokenizer:
    from refiners_core.models.formats.release import read_tokenizer

    released = find_model(f"{DISTRIBUTION}:{base}")
    guard = Guard.from_environment(is_locked=False)
    source = fetch_source(
        released, _READS, base, released.spec.settings, offline=offline, guard=guard
    )
    return read_tokenizer(source.files)
