"""Opens models without a name: a folder, a file, a repository, or a live diffusers pipeline."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from refiners.choose.lock import named
from refiners.choose.lookup import find_model
from refiners.choose.policy import Guard
from refiners.errors import OptionError
from refiners.hub.client import Hub
from refiners.hub.shapes import header_of
from refiners.hub.tensor_header import Header, read_header
from refiners.installed.distribution import DISTRIBUTION
from refiners.manifest.address import check_not_url
from refiners.recognition.recogniser import Evidence
from refiners.sources.fetch import announce_terms, fetch_all, fetch_source
from refiners.sources.links import linked
from refiners.sources.origin import LocalModel, NamedModel, originating
from refiners.sources.place import SUFFIX
from refiners.sources.recognition import hint_for, identify_kind
from refiners.sources.repository import held_repository

if TYPE_CHECKING:
    import torch

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

    A folder may be that of a language model, which is typed as the other models. A single file has
    no vocabulary. The vocabulary is read from a folder `tokenizer` beside the file, or fetched from
    the repository of the released model.

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
    from refiners_core.models.formats.open import open_model

    check_not_url(str(what))
    path = Path(what)
    if path.suffix == SUFFIX and path.is_file():
        _check_whole(str(what), read_header(path))

    def vocabulary(base: str) -> ClipTokenizer:
        try:
            return _vocabulary(base, offline)
        except Exception as error:
            error.add_note(f"Or put the tokenizer's folder beside {what}, to fetch nothing.")
            raise

    origin = LocalModel.of(path, str(dtype).removeprefix("torch."))
    model = open_model(path, tokenizer=vocabulary, dtype=dtype, device=device)
    return originating(cast("LatentDiffusion", model), origin)


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
    from refiners_core.models.formats.open import family_of, open_model

    guard = Guard.from_environment(is_locked=named(lock) is not None)
    hub = Hub.from_environment(offline, largest=guard.largest)
    repository = held_repository(what, hub, lock, str(dtype).removeprefix("torch."), guard)
    files = {file.file or "": file for file in repository.spec.weights.values()}
    guard.admit(repository, files.values())
    announce_terms(repository.id, files.values())
    (single, *several) = files
    if not several:
        if header := header_of(files[single], hub):
            _check_whole(what, header)
        path = fetch_all(files, hub)[single]
        model = open_model(path, tokenizer=lambda base: _vocabulary(base, offline),
                           dtype=dtype, device=device)  # fmt: skip
        return originating(cast("LatentDiffusion", model), NamedModel(repository))
    top = next(Path(path).parent for path in files if Path(path).name == "model_index.json")
    texts = {path: file for path, file in files.items() if file.format != "safetensors"}
    family_of(linked(fetch_all(texts, hub), hub.receipts.folder) / top)
    folder = linked(fetch_all(files, hub), hub.receipts.folder)
    model = open_model(folder / top, dtype=dtype, device=device)
    return originating(cast("LatentDiffusion", model), NamedModel(repository))


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
