"""Language models as they are published: a folder with weights, sizes and a tokenizer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from refiners_core.errors import ModelError
from refiners_core.models.decoder.config import DecoderConfig
from refiners_core.models.decoder.defaults import GenerationDefaults
from refiners_core.models.decoder.language_model import LanguageModel
from refiners_core.models.decoder.layout import decoder_keys
from refiners_core.models.decoder.network import Decoder
from refiners_core.models.decoder.tokenizer import TextTokenizer
from refiners_core.models.device import built_on
from refiners_core.models.folder import PublishedFolder, json_table
from refiners_core.weights import load


def is_decoder_folder(path: str | Path) -> bool:
    """Whether a folder has the configuration of one network, as that of a language model has, and
    not of a pipeline of several.

    Args:
        path: The folder, which may not exist.
    """
    folder = Path(path)
    return (folder / "config.json").is_file() and not (folder / "model_index.json").is_file()


def load_decoder(
    path: str | Path,
    *,
    base: str | None = None,
    facts: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> LanguageModel:
    """Loads a language model as transformers publishes it; its weights are memory-mapped.

    Args:
        path: The folder, with `config.json` and the weights in one safetensors file, or in several
            with an index; and where they exist `tokenizer.json`, `tokenizer_config.json`,
            `chat_template.jinja` and `generation_config.json`.
        base: The name of the base model for adapters; the family's by default.
        facts: More facts by which variants of adapters are chosen.
        dtype: The dtype to cast the weights to; as published by default.
        device: The device of the weights.

    Raises:
        ModelError: The path is not such a folder, or its configuration is of another kind of model
            or has an unsupported setting.
        WeightsError: A file is unreadable, or its tensors are not those of the network.
    """
    model = build_decoder(path, base=base, facts=facts)
    source = PublishedFolder(path).weights("", dtype)
    keys = decoder_keys(model.config)
    load(model.decoder, source, keys, dtype=dtype, device=device)
    return model


def build_decoder(
    path: str | Path, *, base: str | None = None, facts: Mapping[str, Any] | None = None
) -> LanguageModel:
    """Builds a language model without its weights, on the meta device.

    A package that ships these small files in its wheel can show and check its model before the
    weights are fetched.

    Args:
        path: The folder, with `config.json` and the other small files of `load_decoder`.
        base: The name of the base model for adapters; the family's by default.
        facts: More facts by which variants of adapters are chosen.

    Raises:
        ModelError: The path is not such a folder, or its configuration is of another kind of model
            or has an unsupported setting.
    """
    if not (Path(path) / "config.json").is_file():
        raise ModelError(
            f"{path} has no config.json.",
            hint="Give the folder of a language model, with config.json and model.safetensors.",
        )
    folder = PublishedFolder(path)
    config = DecoderConfig.from_json(folder.config(""))
    with built_on("meta"):
        decoder = Decoder(config)
    stated = folder.path / "generation_config.json"
    return LanguageModel(
        decoder.eval(),
        TextTokenizer.load(folder.path),
        defaults=GenerationDefaults.from_json(
            json_table(stated) if stated.is_file() else {}, config
        ),
        base=base,
        facts=facts,
    )
