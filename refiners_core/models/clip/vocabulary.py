"""Reading the folder in which a CLIP tokenizer is published."""

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
    # Every byte is in the vocabulary, so nothing is unknown; texts are read, never written; what
    # is cut off, and how, is said by each call.
    idle=(
        "unk_token errors clean_up_tokenization_spaces name_or_path special_tokens_map_file "
        "tokenizer_file vocab_file merges_file vocab merges backend is_local local_files_only "
        "processor_class use_fast "
        "truncation_side model_input_names auto_map max_length stride truncation_strategy padding "
        "pad_to_multiple_of pad_token_type_id cls_token sep_token mask_token legacy "
        "model_specific_special_tokens init_inputs"
    ),
)
"""The table of `tokenizer_config.json`."""
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
"""The table of the model in `tokenizer.json`."""
_CLASSES: Final = ("CLIPTokenizer", "CLIPTokenizerFast")
_NORMALIZERS: Final = ["NFC", "Replace", "Lowercase"]


class Vocabulary(NamedTuple):
    """What a tokenizer folder holds."""

    words: Mapping[str, int]
    merges: list[tuple[str, str]]
    length: int | None
    """How many tokens a prompt has; None where nobody says."""
    start: str
    end: str
    padding: str | None


def read_vocabulary(folder: Path) -> Vocabulary:
    """Reads a published tokenizer folder.

    Raises:
        ModelError: A file is missing or unreadable, or asks for what is not known here.
    """
    try:
        config = _table(folder / "tokenizer_config.json")
        marks = _table(folder / "special_tokens_map.json")
        whole = _table(folder / "tokenizer.json")
        words, merges = _words(folder, whole)
        added = {**_table(folder / "added_tokens.json"), **_added(config, whole)}
        length = config.get("model_max_length")
        # Libraries write an astronomic number where a tokenizer has no length of its own.
        length = None if length is None or length > 1_000_000 else int(length)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"no readable tokenizer in {folder}: {error}.",
            hint="It holds vocab.json and merges.txt as they are published.",
        ) from error
    read = Published(config, "CLIPTokenizer", table=TOKENIZER, file="tokenizer_config.json")
    read.only("tokenizer_class", None, *_CLASSES)
    more = marks.get("additional_special_tokens") or []
    _check_added(words, [*added, *map(str, map(_content, more))])
    tokens = {**marks, **{key: value for key, value in config.items() if value is not None}}
    return Vocabulary(
        words,
        merges,
        length,
        _content(tokens.get("bos_token")) or "<|startoftext|>",
        _content(tokens.get("eos_token")) or "<|endoftext|>",
        _content(tokens.get("pad_token")),
    )


def _check_added(words: Mapping[str, int], added: list[str]) -> None:
    if lost := [word for word in dict.fromkeys(added) if word not in words]:
        raise ModelError(
            f"the tokenizer has words that were added to its vocabulary: {', '.join(lost[:4])}; "
            "their embeddings are a textual inversion.",
            hint="Take them off where they were added, pipe.unload_textual_inversion(), and save "
            "the pipeline again if it comes from a folder.",
        )


def _words(
    folder: Path, whole: Mapping[str, Any]
) -> tuple[Mapping[str, int], list[tuple[str, str]]]:
    if whole:
        _check_whole(whole)
    if whole and not (folder / "vocab.json").exists():
        model = whole["model"]
        # Until 2024 a pair was written as one text with a blank in it.
        pairs = [it.split(" ") if isinstance(it, str) else it for it in model["merges"]]
        return model["vocab"], [(a, b) for a, b in pairs]
    # Not by splitlines(): signs of the vocabulary may be what it takes for the end of a line.
    lines = [line.rstrip("\r") for line in (folder / "merges.txt").read_text("utf-8").split("\n")]
    first = 1 if "#version" in lines[0] else 0
    pairs = [line.split(" ") for line in lines[first:] if line]
    vocab = cast("dict[str, int]", json.loads((folder / "vocab.json").read_text("utf-8")))
    return dict(vocab), [(a, b) for a, b in pairs]


def _check_whole(whole: Mapping[str, Any]) -> None:
    Published(whole["model"], "CLIPTokenizer", table=BYTE_PAIRS, file="tokenizer.json")
    normalizer = whole.get("normalizer")
    if normalizer is not None:
        steps = [step["type"] for step in normalizer.get("normalizers", [normalizer])]
        if steps != _NORMALIZERS:
            Published(whole, "CLIPTokenizer", file="tokenizer.json").only("normalizer")


def _added(config: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    decoder: Mapping[str, Any] = config.get("added_tokens_decoder") or {}
    tables = [*decoder.values(), *(whole.get("added_tokens") or [])]
    return {str(_content(token)): token for token in tables}


def _table(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    found = json.loads(path.read_text("utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is not a table")
    return cast("dict[str, Any]", found)


def _content(token: Any) -> Any:
    """Returns the text of a special token, published as a string or as a table."""
    return token["content"] if isinstance(token, Mapping) else token
