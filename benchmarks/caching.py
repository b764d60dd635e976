"""Compares whole generations with caches to those without, and shows what becomes of the pictures.

Run `python benchmarks/caching.py`, or with `--base sdxl`. First a UNet of the official size with
random weights generates from given texts, without decoding, with and without caches in turn, on one
thread: medians and their ratios, and exit code 1 if a bar is missed. It takes 4 GB, for Stable
Diffusion XL 11 GB. Then the playground draws prompts with each cache: how often a classifier finds
what the prompt names, and how near the pictures are to those without a cache.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import refiners
import torch
from core import reported
from refiners_cache.deep import DeepCache
from refiners_cache.first_block import FirstBlockCache
from refiners_cache.gate import TGate
from refiners_cache.tea import TeaCache
from refiners_playground.caption import plain_caption
from refiners_playground.measure.sampling import generated, named_scenes
from refiners_playground.recogniser import agreement, load_recogniser

from refiners_core import Adapter
from refiners_core.measure import Beside, Settings
from refiners_core.models import sd15, sdxl
from refiners_core.models.diffusion.loop import denoising_loop, scalar

STEPS, SIDE = 50, 16
"""The steps of a generation, and the side of its latents."""
GATE = 20
"""The gate of T-GATE: the authors' 10 of 25 steps."""
BUILDS: Mapping[str, Callable[..., Any]] = {"sd15": sd15.build, "sdxl": sdxl.build}
CACHES: Mapping[str, Callable[[], Sequence[Adapter]]] = {
    "DeepCache": lambda: [DeepCache(key="deepcache")],
    "T-GATE": lambda: [TGate(gate_step=GATE, key="t-gate")],
    "DeepCache and T-GATE": lambda: [
        DeepCache(key="deepcache"),
        TGate(gate_step=GATE, sp_interval=1, warm_up=0, key="t-gate"),
    ],
    "TeaCache": lambda: [TeaCache(key="teacache")],
    "first-block cache": lambda: [FirstBlockCache(key="first-block-cache")],
}
"""The caches with their defaults; `sp_interval=1, warm_up=0` is the authors' beside DeepCache."""
BARS = {"DeepCache": 1 / 2.0, "DeepCache and T-GATE": 1 / 2.5}
"""The largest time with a cache, relative to that without. Random weights say nothing of caches
that decide by changes."""


def conditioning(base: str) -> dict[str, dict[str, torch.Tensor]]:
    """Returns random texts for both branches, and for Stable Diffusion XL what goes with them."""
    shapes = {"text": (1, 77, 768)}
    if base == "sdxl":
        shapes = {"text": (1, 77, 2048), "pooled": (1, 1280), "time_ids": (1, 6)}
    return {
        key: {name: torch.randn(shape) for name in ("uncond", "cond")}
        for key, shape in shapes.items()
    }


def _rows(given: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {key: tensors["cond"] for key, tensors in given.items()}


def speed(base: str, rounds: int) -> bool:
    """Measures whole generations by an official UNet of random weights."""
    model = BUILDS[base](device="meta")
    model.unet.to_empty(device="cpu")
    for weight in model.unet.parameters():
        weight.normal_(std=0.02)
    model.eval().requires_grad_(False)
    latents, given = torch.randn(1, 4, SIDE, SIDE), conditioning(base)
    sampler = model.sampler.with_steps(STEPS)
    constants = {"branches": ("uncond", "cond"), "guidance": scalar(7.5, torch.device("cpu"))}

    def generate(make: Callable[[], Sequence[Adapter]]) -> torch.Tensor:
        worn = [adapter.inject(model) for adapter in make()]
        scales = {adapter.scale_key: torch.tensor(1.0) for adapter in worn}
        try:
            return denoising_loop(
                model.denoise,
                latents,
                sampler,
                given,
                constants=constants | scales,
            )
        finally:
            model.eject_all()

    model.unet(latents, context={"timestep": torch.tensor(1), **_rows(given)})  # warms up
    calls = {name: lambda make=CACHES[name]: generate(make) for name in BARS}
    medians = medians_of({"without": lambda: generate(tuple), **calls}, rounds)
    seconds = ", ".join(f"{name} {median:.1f} s" for name, median in medians.items())
    print(f"{base}, {STEPS} steps, latents {SIDE}x{SIDE}: {seconds}")
    kept = True
    for name, bar in BARS.items():
        ratio = medians[name] / medians["without"]
        kept &= reported(f"{base}: {name} / without ({1 / ratio:.2f} x faster)", ratio, "", bar)
    return kept


def medians_of(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Returns the median seconds of each call. Calls alternate, and so does which one is first."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds):
        for name in list(calls)[:: -1 if i % 2 else 1]:
            start = time.perf_counter()
            calls[name]()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(samples) for name, samples in times.items()}


def pictures(count: int) -> None:
    """Prints what becomes of the pictures of the playground, each generated alone."""
    model = refiners.load_model("playground")
    scenes = named_scenes(count)
    prompts, recogniser = [plain_caption(scene) for scene in scenes], load_recogniser()
    calls: list[Any] = []
    model.unet.mid.register_forward_hook(lambda *call: calls.append(call))
    rows: dict[str, torch.Tensor] = {}
    shares_run: dict[str, float] = {}
    for name, make in {"without": tuple, **CACHES}.items():
        worn = {adapter.inject(model): Beside() for adapter in make()}
        settings = Settings(steps=STEPS, beside=worn)
        calls.clear()
        made = [generated(model, [prompt], settings) for prompt in prompts]
        rows[name], shares_run[name] = torch.cat(made), len(calls) / (count * STEPS)
        model.eject_all()
    bare = rows["without"]
    print(f"playground, {count} prompts, {STEPS} steps:")
    for name, pixels in rows.items():
        shares = agreement(recogniser, pixels, scenes)
        hits = ", ".join(f"{key} {shares[key]:.2f}" for key in ("shape", "colour", "background"))
        decibels = -10 * (pixels - bare).square().mean((1, 2, 3)).log10()
        near = "" if name == "without" else f", PSNR to those without {decibels.mean():.1f} dB"
        print(f"  {name:<21} {shares_run[name]:4.0%} of calls full; {hits}{near}")


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--base", choices=[*BUILDS], default="sd15")
    parser.add_argument("--rounds", type=int, default=2, help="generations for each median")
    parser.add_argument("--pictures", type=int, default=16, help="prompts of the playground")
    options = parser.parse_args()
    kept = speed(options.base, options.rounds)
    gc.collect()
    pictures(options.pictures)
    return kept


if __name__ == "__main__":
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # so that no measured call pays for traversing imported modules
    with torch.no_grad():
        kept = main()
    raise SystemExit(0 if kept else 1)
