"""Compares the overhead of a tree with plain torch, and of inject and eject with PEFT.

Run `python benchmarks/core.py`. Peers take turns in one process, on one thread. It prints medians
and their ratios, and exits with 1 if a bar is missed. `--small` skips PEFT, whose UNet of the
official size takes 3.5 GB.

The bars leave room for plain code: a chain calls each child through one function, which costs
0.05 ms a call of a UNet, and is constructed as any `nn.Module`. As that costs 5 to 15 us a layer,
depending on the machine, the surgery of 1,700 seats is compared with constructing 1,700 modules of
torch, without which no adapter could add a layer there.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from refiners_core import Adapter, Chain, Edit, Seat, Selection, Sum, select
from refiners_core.layers.attention import CrossAttention, SelfAttention
from refiners_core.models.device import built_on
from refiners_core.models.formats.diffusers_config import of_unet
from refiners_core.models.unet import UNet, UNetConfig

RANK = 16
ROUNDS = 15


class Lora(Adapter):
    """A low-rank branch beside each seat of a selection (arXiv:2106.09685)."""

    def __init__(self, where: Callable[[Chain], Selection]) -> None:
        super().__init__(name="lora")
        self.where = where

    def edits(self, model: Chain) -> Iterable[Edit]:
        def beside(inner: nn.Module, seat: Seat) -> Sum:
            return Sum(inner, self.layer(seat, lambda: low_rank(seat.layer)))

        return self.where(model).wrap(beside, name="lora")


def low_rank(layer: Any) -> Chain:
    down = nn.Linear(layer.in_features, RANK, bias=False)
    return Chain(down, nn.Linear(RANK, layer.out_features, bias=False))


def milliseconds(
    calls: dict[str, Callable[[], Any]],
    rounds: int,
    undo: dict[str, Callable[[], Any]] | None = None,
) -> dict[str, float]:
    """Returns the median time of each call. Calls alternate, and so does which one is first.

    The first round is not counted, nor is the time of `undo`, which follows each call.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds + 1):
        for name in list(calls)[:: -1 if i % 2 else 1]:
            start = time.perf_counter()
            calls[name]()
            times[name].append(1e3 * (time.perf_counter() - start))
            if undo is not None:
                undo[name]()
    return {name: statistics.median(samples[1:]) for name, samples in times.items()}


def reported(name: str, value: float, unit: str, bar: float) -> bool:
    """Prints a figure and returns whether it keeps its bar."""
    verdict = "kept" if value <= bar else "MISSED"
    print(f"{name:<58} {value:8.3f} {unit:<3} at most {bar:g}  {verdict}")
    return value <= bar


def nested(kind: type[Any], depth: int) -> nn.Module:
    return kind(*[nested(kind, depth - 1) if depth else nn.Identity() for _ in range(3)])


def overhead() -> list[bool]:
    """Measures identity leaves in a Chain and in an `nn.Sequential`."""
    x, kept = torch.zeros(1), list[bool]()
    for name, bar, build in (
        ("flat, 100 leaves", 0.60, lambda kind: kind(*[nn.Identity() for _ in range(100)])),
        ("nested 5 deep, fan-out 3", 0.60, lambda kind: nested(kind, 4)),
    ):
        trees = {"Sequential": build(nn.Sequential), "Chain": build(Chain)}
        calls = {
            kind: lambda tree=tree: [tree(x) for _ in range(50)] for kind, tree in trees.items()
        }
        medians = milliseconds(calls, 4 * ROUNDS)
        if name.startswith("flat"):
            print(f"nn.Sequential: {medians['Sequential'] / 5:.2f} us a leaf")  # 50 calls of 100
        ratio = medians["Chain"] / medians["Sequential"]
        kept.append(reported(f"Chain / Sequential, {name}", ratio, "", bar))
    return kept


def linears(tree: Chain) -> Selection:
    return select(tree).of(nn.Linear)


def attention_linears(tree: Chain) -> Selection:
    return linears(tree).within(SelfAttention, CrossAttention)


def flat(seats: int) -> Chain:
    with built_on("meta"):
        return Chain(*[Chain(*[nn.Linear(64, 64) for _ in range(4)]) for _ in range(seats // 4)])


def on_and_off(tree: Chain, adapter: Adapter) -> Callable[[], Any]:
    return lambda: adapter.inject(tree).eject()


def surgery() -> list[bool]:
    """Measures inject plus eject of a LoRA that has already built its layers."""
    with built_on("meta"):
        unet = UNet(UNetConfig())
    adapters = {128: Lora(attention_linears), 1700: Lora(linears), 240: Lora(linears)}
    trees = {128: unet, 1700: flat(1700), 240: flat(240), 10_000: flat(10_000)}
    adapters[10_000] = Lora(linears)
    assert len(attention_linears(unet)) == 128
    medians: dict[str, float] = {}
    for n, tree in trees.items():  # one by one, as a tree of 10,000 evicts the caches of the others
        medians |= milliseconds({str(n): on_and_off(tree, adapters[n])}, ROUNDS)
    ready = [(nn.Identity(), nn.Identity()) for _ in range(1700)]
    beside_torch = milliseconds(
        {
            "ours": on_and_off(trees[1700], adapters[1700]),
            "torch": lambda: [nn.Sequential(*pair) for pair in ready],
        },
        ROUNDS,
    )
    print(f"1,700 nn.Sequential of two ready layers: {beside_torch['torch']:.2f} ms")
    per_seat = {n: medians[str(n)] / n for n in (240, 10_000)}
    first, second = adapters[128].inject(unet), Lora(attention_linears)
    with built_on("meta"):
        second.inject(UNet(UNetConfig()))
    swap = milliseconds({"hotswap": lambda: first.hotswap(second)}, ROUNDS)["hotswap"]
    return [
        reported("hotswap of two resident LoRAs, 128 seats", swap, "ms", 1),
        reported("inject + eject, 128 attention linears of SD 1.5", medians["128"], "ms", 5),
        reported(
            "inject + eject, 1,700 seats / as many nn.Sequential",
            beside_torch["ours"] / beside_torch["torch"],
            "",
            3,
        ),
        reported("per seat, 10,000 / 240 seats", per_seat[10_000] / per_seat[240], "", 2),
    ]


def beside_peft() -> list[bool]:
    """Measures the same LoRA by PEFT in diffusers' UNet, with the weights in memory."""
    from diffusers import UNet2DConditionModel
    from peft import LoraConfig

    config = UNetConfig()
    with torch.device("meta"):
        theirs: Any = UNet2DConditionModel(**of_unet(config))
        ours = UNet(config)
    theirs, ours = theirs.to_empty(device="cpu"), ours.to_empty(device="cpu")
    names = ["to_q", "to_k", "to_v", "to_out.0"]
    lora = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=names)

    def load_and_unload() -> None:
        theirs.add_adapter(lora, adapter_name="lora")
        theirs.unload_lora()

    calls = {"PEFT": load_and_unload, "ours": on_and_off(ours, Lora(attention_linears))}
    medians = milliseconds(calls, 7)
    print(f"PEFT {medians['PEFT']:.1f} ms, ours {medians['ours']:.2f} ms")
    ratio = medians["ours"] / medians["PEFT"]
    return [reported("inject + eject / PEFT's load + unload", ratio, "", 0.06)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="skip PEFT")
    small = parser.parse_args().small
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # so that no measured call pays for traversing imported modules
    kept = [*overhead(), *surgery(), *([] if small else beside_peft())]
    raise SystemExit(0 if all(kept) else 1)
