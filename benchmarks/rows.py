"""Compares a batch in which each text has its own LoRA with the same batch of the bare model.

Run `python benchmarks/rows.py`, with `--size qwen` for the sizes of Qwen2.5-0.5B (6 GB) or `--size
tiny` for a model whose time is overhead. Both models share their weights, which are random, and
take turns in one process, on one thread. It prints ratios of medians, and exits with 1 if a bar is
missed.
"""

import argparse
import gc
from typing import Any

import torch
from core import milliseconds, reported
from refiners_lora.adapter import Lora

from refiners_core import Condition
from refiners_core.models.decoder import Decoder, DecoderConfig, LanguageModel, Rope
from refiners_core.models.device import built_on

RANK, ROWS, ADAPTERS = 16, 8, 4
TINY = DecoderConfig(
    family="llama", vocabulary=512, width=64, inner_width=128, layers=4, heads=4, kv_heads=2,
    head_width=16, places=512,
)  # fmt: skip
QWEN = DecoderConfig(
    family="qwen2", vocabulary=151936, width=896, inner_width=4864, layers=24, heads=14,
    kv_heads=2, head_width=64, places=32768, rope=Rope(theta=1e6), has_qkv_bias=True, is_tied=True,
)  # fmt: skip
"""The sizes of Qwen2.5-0.5B."""


def pair(config: DecoderConfig) -> tuple[LanguageModel, LanguageModel]:
    """Returns two models with the same random weights."""
    with built_on("meta"):
        decoders = Decoder(config), Decoder(config)
    first = decoders[0].to_empty(device="cpu")
    for name, weight in first.named_parameters():
        weight.data.normal_(std=0.02) if weight.ndim > 1 else weight.data.fill_("norm" in name)
    if config.is_tied:
        first.head.weight = first.embed.weight
    decoders[1].load_state_dict(first.state_dict(), assign=True)
    if config.is_tied:
        decoders[1].head.weight = decoders[1].embed.weight
    return tuple([LanguageModel(decoder.eval().requires_grad_(False)) for decoder in decoders])  # pyright: ignore


def adapters_of(model: LanguageModel) -> list[Lora]:
    """Returns LoRAs of all linear layers of the blocks, worn by a model."""
    adapters = [Lora(rank=RANK, name="tenant").inject(model) for _ in range(ADAPTERS)]
    for adapter in adapters:
        adapter.requires_grad_(False)
        for weight in adapter.parameters():
            weight.normal_(std=0.02)
    return adapters


def measured(size: str, config: DecoderConfig, tokens: int, rounds: int) -> list[bool]:
    """Measures generations with a LoRA in each row, and with one in all rows."""
    bare, model = pair(config)
    adapters = adapters_of(model)
    prompts = [torch.randint(0, config.vocabulary, (12,)) for _ in range(ROWS)]
    scales = [[float(row % ADAPTERS == i) for row in range(ROWS)] for i in range(ADAPTERS)]
    by_row = {a: Condition(scale=scale) for a, scale in zip(adapters, scales, strict=True)}
    alone: dict[Any, Any] = dict.fromkeys(adapters[1:])

    def written(which: LanguageModel, conditions: Any) -> Any:
        return which.generate(
            prompts, conditions=conditions, max_new_tokens=tokens, output="tokens"
        )

    calls = {
        "bare": lambda: written(bare, None),
        "rows": lambda: written(model, by_row),
        "one": lambda: written(model, alone),
    }
    assert not torch.equal(torch.stack(calls["rows"]()), torch.stack(calls["bare"]()))
    medians = milliseconds(calls, rounds)
    shown = ", ".join(f"{name} {median:.1f} ms" for name, median in medians.items())
    print(f"{size}, {ROWS} texts of {tokens} tokens: {shown}")
    ratio = medians["rows"] / medians["bare"]
    name = f"{ADAPTERS} LoRAs of rank {RANK} in {ROWS} rows / the bare batch, {size}"
    kept = [reported(name, ratio, "", 1.3)]
    if size == "qwen":
        name = f"one LoRA on all linear layers / the bare batch, {size}"
        kept.append(reported(name, medians["one"] / medians["bare"], "", 1.12))
    return kept


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("tiny", "qwen"), help="by default both")
    size = parser.parse_args().size
    kept: list[bool] = []
    if size in (None, "tiny"):
        kept += measured("tiny", TINY, tokens=64, rounds=15)
    if size in (None, "qwen"):
        kept += measured("qwen", QWEN, tokens=6, rounds=3)
    return all(kept)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    gc.collect()
    gc.freeze()  # so that no measured call pays for traversing imported modules
    with torch.no_grad():
        met = main()
    raise SystemExit(0 if met else 1)
