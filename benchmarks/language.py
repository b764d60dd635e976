"""Compares decoding with transformers, from the same weights in the official layout.

Run `python benchmarks/language.py`, with `--size tiny` for models whose time is overhead, or
`--size qwen` for the sizes of Qwen2.5-0.5B (6 GB, two threads). Peers take turns in one process. It
prints ratios of medians, and exits with 1 if a bar is missed. `--size writer` prints the median
time in which `playground-writer` writes 64 tokens on one core, without a peer.
"""

import argparse
import gc
import tempfile
from pathlib import Path
from typing import Any

import refiners
import torch
import transformers
from core import milliseconds, reported

from refiners_core.models.decoder import GenerationDefaults, LanguageModel, load_decoder

TINY = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
QWEN = {
    "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768,
    "rope_theta": 1e6, "tie_word_embeddings": True,
}  # fmt: skip
"""The sizes of Qwen2.5-0.5B."""
GPT2 = {"vocab_size": 512, "n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 512}
NONE = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def pair(name: str, sizes: dict[str, Any], folder: Path) -> tuple[Any, LanguageModel]:
    """Returns transformers' model and ours, with the same random weights."""
    torch.manual_seed(0)
    kind = "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM"
    theirs = getattr(transformers, kind)(getattr(transformers, f"{name}Config")(**sizes, **NONE))
    theirs.eval().save_pretrained(folder)
    return theirs, load_decoder(folder)


def decoded(name: str, sizes: dict[str, Any], tokens: int, rounds: int, bar: float) -> bool:
    """Measures greedy texts of so many tokens after a prompt of 12."""
    with tempfile.TemporaryDirectory() as place:
        theirs, ours = pair(name, sizes, Path(place))
    ids = torch.randint(0, sizes["vocab_size"], (1, 12))
    mask = torch.ones_like(ids)

    def transformers_writes() -> Any:
        return theirs.generate(
            ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, pad_token_id=0
        )[0, 12:]

    calls = {
        "transformers": transformers_writes,
        "ours": lambda: ours.generate(ids[0], max_new_tokens=tokens, output="tokens"),
    }
    assert torch.equal(*[call() for call in calls.values()])
    medians = milliseconds(calls, rounds)
    each = {who: median / tokens for who, median in medians.items()}
    print(f"{name}: transformers {each['transformers']:.2f} ms, ours {each['ours']:.2f} ms a token")
    ratio = medians["ours"] / medians["transformers"]
    width = sizes.get("hidden_size") or sizes["n_embd"]
    return reported(f"{name} of width {width}, a token / transformers'", ratio, "", bar)


def writer_wrote(rounds: int, bar: float) -> bool:
    """Measures texts of 64 tokens by the writer that is embedded in its package."""
    read = refiners.load_model("playground-writer", kind=LanguageModel)
    endless = LanguageModel(read.decoder, read.tokenizer, defaults=GenerationDefaults())
    calls = {"ours": lambda: endless.generate("a", max_new_tokens=64, output="tokens")}
    assert len(calls["ours"]()) == 64
    seconds = milliseconds(calls, rounds)["ours"] / 1000
    return reported("playground-writer, 64 tokens on one core", seconds, "s", bar)


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("tiny", "qwen", "writer"), help="by default all")
    size = parser.parse_args().size
    kept: list[bool] = []
    if size in ("writer", None):
        torch.set_num_threads(1)
        kept.append(writer_wrote(15, 0.3))
    if size in ("tiny", None):
        torch.set_num_threads(1)
        for name, sizes in {"Llama": TINY, "Qwen2": TINY, "GPT2": GPT2}.items():
            kept.append(decoded(name, sizes, 64, 15, 0.6))
    if size in ("qwen", None):
        torch.set_num_threads(2)
        kept.append(decoded("Qwen2", QWEN, 12, 5, 0.95))
    return all(kept)


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    gc.collect()
    gc.freeze()  # so that no measured call pays for traversing imported modules
    with torch.no_grad():
        met = main()
    raise SystemExit(0 if met else 1)
