"""Models without a name: a folder, a file, a repository, or a live pipeline of diffusers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from refiners.choose.lock import named
from refiners.choose.lookup import find_model
from refiners.choose.policy import Guard
from refiners.errors import OptionError
from refiners.hub.client import Hub
from refiners.hub.shapes import header_of
from refiners.installed.distribution import DISTRIBUTION
from refiners.sources.fetch import fetch_all, fetch_source
from refiners.sources.links import linked
from refiners.sources.repository import held_repository

if TYPE_CHECKING:
    import torch

    from refiners_core.models.clip.tokenizer import ClipTokenizer
    from refiners_core.models.diffusion import LatentDiffusion

_MARKS: Final = ("/", os.sep, ".safetensors")
"""What a path has in it and a name has not."""
_READS: Final = {"vocab": "vocab", "merges": "merges"}


def is_local(what: object) -> bool:
    """Whether something is to be opened where it is, rather than looked up by name."""
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

    A single file has no vocabulary: that of the release is taken, from a folder `tokenizer` beside
    the file or from where the release is published.

    Raises:
        OptionError: A pipeline is asked to change what it shares.
        ModelError, WeightsError: It cannot be read, or is something else.
        NetworkError, IntegrityError, CacheError: The vocabulary cannot be had.
    """
    if _is_pipeline(what):
        from refiners_core.models.formats.pipeline import from_pipeline

        if device is not None or dtype is not None:
            raise OptionError(
                "a pipeline's tensors are shared, so they stay what and where they are.",
                hint="Leave device= and dtype= out; pipe.to(...) first moves it.",
            )
        return from_pipeline(what)
    from refiners_core.models.formats.open import open_model

    def vocabulary(base: str) -> ClipTokenizer:
        try:
            return _vocabulary(base, offline)
        except Exception as error:
            error.add_note(f"Or put the tokenizer's folder beside {what}: nothing is fetched then.")
            raise

    return open_model(Path(what), tokenizer=vocabulary, dtype=dtype, device=device)


def open_repository(
    what: str,
    *,
    device: torch.device | None,
    dtype: torch.dtype | None,
    offline: bool | None,
    lock: str | Path | None,
) -> LatentDiffusion:
    """Fetches and opens a model that is a repository of the Hub.

    What says what it is comes first: of something else no weights are fetched.

    Raises:
        OptionError, UnsupportedError, ModelError: It is misspelt, or no model that is known here.
        LockError: It is not in the lock.
        NetworkError, IntegrityError, CacheError: Its files cannot be had as they are pinned.
        PolicyError: A rule refuses it, or its weights are pickles.
    """
    from refiners_core.models.formats.open import family_of, open_model, recognised

    guard = Guard.from_environment(is_locked=named(lock) is not None)
    hub = Hub.from_environment(offline, largest=guard.largest)
    found = held_repository(what, hub, lock, str(dtype).removeprefix("torch."), guard)
    files = {file.file or "": file for file in found.spec.weights.values()}
    guard.admit(found, files.values())
    (single, *several) = files
    if not several:
        if header := header_of(files[single], hub):
            recognised(what, header)
        path = fetch_all(files, hub)[single]
        return open_model(path, tokenizer=lambda base: _vocabulary(base, offline),
                          dtype=dtype, device=device)  # fmt: skip
    top = next(Path(path).parent for path in files if Path(path).name == "model_index.json")
    texts = {path: file for path, file in files.items() if file.format != "safetensors"}
    family_of(linked(fetch_all(texts, hub), hub.receipts.folder) / top)
    folder = linked(fetch_all(files, hub), hub.receipts.folder)
    return open_model(folder / top, dtype=dtype, device=device)


def _is_pipeline(what: object) -> bool:
    # As the core's own question; asking it there would import torch before names are checked.
    return isinstance(getattr(what, "components", None), Mapping)


def _vocabulary(base: str, offline: bool | None) -> ClipTokenizer:
    from refiners_core.models.formats.release import read_tokenizer

    released = find_model(f"{DISTRIBUTION}:{base}")
    guard = Guard.from_environment(is_locked=False)
    source = fetch_source(
        released, _READS, base, released.spec.settings, offline=offline, guard=guard
    )
    return read_tokenizer(source.files)
