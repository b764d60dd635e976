"""The result of a training: the published file, its metadata, and its manifest."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from refiners.choose.variant import made_from
from refiners.hub.receipts import sha256_of
from refiners.installed.factory import build_adapter
from torch import Tensor

from refiners_core import Adapter, Chain, Model, Source
from refiners_core.errors import WeightsError
from refiners_core.weights import TensorFile, write
from refiners_train.config.schema import Config
from refiners_train.engine.learner import Learners
from refiners_train.engine.manifest import manifest_of
from refiners_train.engine.model_spec import model_spec

MANIFEST: Final = "adapter.toml"
HASH: Final = "modelspec.hash_sha256"
"""The key of the hash of all bytes behind the header, as ModelSpec defines it."""


def publish(config: Config, model: Model, learners: Learners, folder: Path) -> Path:
    """Writes the trained weights as their family publishes them, and a manifest beside them.

    The files are read back into a new adapter, which must have the very weights.

    Args:
        config: The configuration.
        model: The base, which wears the trained adapter; it wears nothing afterwards.
        learners: The trained weights.
        folder: The output folder.

    Returns:
        The path that `refiners.load_adapter` takes: a file, or a folder of several.

    Raises:
        AdapterError: The family of the adapter has no published layout.
        WeightsError: The files cannot be written, or a weight was lost on the way.
    """
    adapter = learners.adapter
    name = name_of(config, folder)
    for module in learners.modules:
        module.to(getattr(torch, config.result.dtype))
    path = adapter.saved_path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    adapter.save(path)
    files = adapter.saved_files(path)
    weights = [file for file in files.values() if file.suffix == ".safetensors"]
    for file in weights:
        _describe(file, model_spec(config, model, adapter, name))
    trained = {key: value.detach().cpu() for key, value in adapter.published().items()}
    _check_read_back(config, model, adapter, files, trained)
    pins = {role: (file, sha256_of(file)) for role, file in files.items()}
    text = manifest_of(config, model, adapter, name, pins, folder)
    (folder / MANIFEST).write_text(text, "utf-8")
    return path


def name_of(config: Config, folder: Path) -> str:
    """Returns the name of the result: that of the configuration, or of the output folder."""
    words = "".join(sign if sign.isalnum() else "-" for sign in folder.absolute().name.lower())
    return config.result.name or "-".join(filter(None, words.split("-"))) or "adapter"


def _describe(path: Path, notes: Mapping[str, str]) -> None:
    """Adds metadata to a file of weights; what the adapter wrote itself stays."""
    with TensorFile(path) as file:
        tensors = {key: file.tensor(key).clone() for key in file.names()}
        metadata = file.metadata()
    write(tensors, path, {**notes, HASH: f"0x{_hash_of_data(path)}", **metadata})


def _hash_of_data(path: Path) -> str:
    """Returns the sha256 of a safetensors file without its header."""
    with path.open("rb") as file:
        file.seek(int.from_bytes(file.read(8), "little"), 1)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_read_back(
    config: Config,
    model: Model,
    adapter: Adapter,
    files: Mapping[str, Path],
    trained: Mapping[str, Tensor],
) -> None:
    source = adapter.source
    assert source is not None, "a trained adapter was loaded with a source"
    written = replace(source, files={**source.files, **files}, begins=False)
    adapter.eject()
    again = build_adapter(made_from[adapter], _Given(written), dict(config.adapter.options))
    try:
        read = dict(again.inject(model).published())
    finally:
        if again.is_worn:
            again.eject()
    lost = sorted(trained.keys() ^ read.keys())
    dtype = getattr(torch, config.result.dtype)
    lost += [
        key
        for key in trained.keys() & read.keys()
        if not torch.equal(trained[key].to(dtype), read[key].detach().cpu().to(dtype))
    ]
    if lost:
        names = ", ".join(map(str, files.values()))
        raise WeightsError(
            f"{len(lost)} weights of {adapter.key} differ after {names} was read back, such as "
            f"{lost[0]!r}.",
            hint="The checkpoint is whole; report this to the author of the adapter.",
        )


class _Given:
    """Returns a source for any model."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __call__(self, model: Chain) -> Any:
        return self.source
