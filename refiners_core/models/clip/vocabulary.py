"""Reading the published folder of a CLIP tokenizer."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from refiners_core.errors import ModelError
from refiners_core.models.config_reader import Format, Published

TOKENIZER: Final = Format.of(
    followed="model_max_length bos_token eos_token pad_token added_tokens_decoder tokenizer_class",
    fixed={
        "add_prefix_space": (False,),
        "do_lower_case": (True,),
        "padding_side": ("right",),
        "additional_special_tokens": ([],),
        "extra_special_tokens": ([], {}),
        "split_special_tokens": (False,),
    },
    # Every byte is in the vocabulary, so no token is unknown; texts are encoded, never decoded;
    # truncation is an argument of each call.
    idle=(
        "unk_token errors clean_up_tokenization_spaces name_or_path special_tokens_map_file "
        "tokenizer_file vocab_file merges_file vocab merges backend is_local local_files_only "
        "processor_class use_fast "
        "truncation_side model_input_names auto_map max_length stride truncation_strategy padding "
        "pad_to_multiple_of pad_token_type_id cls_token sep_token mask_token legacy "
        "model_specific_special_tokens init_inputs"
    ),
)
"""The keys of `tokenizer_config.json`."""
BYTE_PAIRS: Final = Format.of(
    followed="vocab merges",
    fixed={
        "type": ("BPE",),
        "dropout": (None, 0.0),
        "continuing_subword_prefix": ("", None),
        "end_of_word_suffix": ("</w>",),
        "byte_fallback": (False,),
        "ignore_merges": (False,),
    },
    idle="unk_token fuse_unk",
)
"""The keys of the model in `tokenizer.json`."""
_CLASSES: Final = ("CLIPTokenizer", "CLIPTokenizerFast")
_NORMALIZERS: Final = ["NFC", "Replace", "Lowercase"]


class Vocabulary(NamedTuple):
    """The content of a tokenizer folder."""

    words: Mapping[str, int]
    """The id of each token."""
    merges: list[tuple[str, str]]
    """The pairs that are joined, most frequent first."""
    length: int | None
    """The number of tokens of a prompt; None if the folder does not name it."""
    start: str
    end: str
    padding: str | None
    """The padding token; None for the end token."""


def read_vocabulary(folder: Path) -> Vocabulary:
    """Reads a published tokenizer folder.

    Raises:
        ModelError: A file is missing or unreadable, or has an unsupported setting.
    """
    try:
        config = _table(folder / "tokenizer_config.json")
        special = _table(folder / "special_tokens_map.json")
        fast = _table(folder / "tokenizer.json")
        words, merges = _words(folder, fast)
        added = {**_table(folder / "added_tokens.json"), **_added(config, fast)}
        length = config.get("model_max_length")
        # For a tokenizer without a length, libraries write an astronomic number.
        length = None if length is None or length > 1_000_000 else int(length)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{folder} has no readable tokenizer: {error}.",
            hint="Give a folder with vocab.json and merges.txt as they are published.",
        ) from error
    read = Published(config, "CLIPTokenizer", table=TOKENIZER, file="tokenizer_config.json")
    read.only("tokenizer_class", None, *_CLASSES)
    more = special.get("additional_special_tokens") or []
    _check_added(words, [*added, *map(str, map(_content, more))])
    tokens = {**special, **{key: value for key, value in config.items() if value is not None}}
    return Vocabulary(
        words,
        merges,
        length,
        _content(tokens.get("bos_token")) or "<|startoftext|>",
        _content(tokens.get("eos_token")) or "<|endoftext|>",
        _content(tokens.get("pad_token")),
    )


def _check_added(words: Mapping[str, int], added: list[str]) -> None:
    if extra := [word for word in dict.fromkeys(added) if word not in words]:
        raise ModelError(
            f"the tokenizer has words that were added to its vocabulary: {', '.join(extra[:4])}; "
            "their embeddings are a textual inversion.",
            hint="Remove them with pipe.unload_textual_inversion(), and save the pipeline again if "
            "it comes from a folder.",
        )


def _words(
    folder: Path, fast: Mapping[str, Any]
) -> tuple[Mapping[str, int], list[tuple[str, str]]]:
    if fast:
        _check_fast(fast)
    if fast and not (folder / "vocab.json").exists():
        model = fast["model"]
        # Until 2024 a pair was written as one text with a blank in it.
        merges = model["merges"]
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in merges]
        return model["vocab"], [(a, b) for a, b in pairs]
    # Not splitlines(): some characters of the vocabulary are line ends to it.
    lines = [line.rstrip("\r") for line in (folder / "merges.txt").read_text("utf-8").split("\n")]
    first = 1 if "#version" in lines[0] else 0
    pairs = [line.split(" ") for line in lines[first:] if line]
    vocab = cast("dict[str, int]", json.loads((folder / "vocab.json").read_text("utf-8")))
    return dict(vocab), [(a, b) for a, b in pairs]


def _check_fast(fast: Mapping[str, Any]) -> None:
    Published(fast["model"], "CLIPTokenizer", table=BYTE_PAIRS, file="tokenizer.json")
    normalizer = fast.get("normalizer")
    if normalizer is not None:
        steps = [step["type"] for step in normalizer.get("normalizers", [normalizer])]
        if steps != _NORMALIZERS:
            Published(fast, "CLIPTokenizer", file="tokenizer.json").only("normalizer")


def _added(config: Mapping[str, Any], fast: Mapping[str, Any]) -> dict[str, Any]:
    decoder: Mapping[str, Any] = config.get("added_tokens_decoder") or {}
    tables = [*decoder.values(), *(fast.get("added_tokens") or [])]
    return {str(_content(token)): token for token in tables}


def _table(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    content = json.loads(path.read_text("utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return cast("dict[str, Any]", content)


def _content(token: Any) -> Any:
    """Returns the text of a special token, published as a string or as an object."""
    return token["content"] if isinstance(token, Mapping) else token
