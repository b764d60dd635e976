"""Measures image prompts on a UNet of the official size: one call, and a swap of two adapters.

Run `python benchmarks/image_prompt.py`. Calls take turns in one process, on one thread. It prints
medians and their ratios, and exits with 1 if a bar is missed. It takes 4 GB.
"""

import gc
from dataclasses import replace
from typing import Any

import torch
from core import milliseconds, reported
from refiners_ipadapter.adapter import IpAdapter

from refiners_core.models import sd15
from refiners_core.models.clip import ClipImageConfig
from refiners_core.models.unet import UNetConfig

ROWS, SIDE = 2, 16
"""The batch and the side of the latents of a call."""
THEORY = 1.0035
"""The arithmetic of a UNet with attention to four tokens more, relative to one without."""
ENCODER = replace(ClipImageConfig(), width=64, inner_width=128)
"""As many tensors as in the released encoder, but narrow ones: it does not run here."""


def calling(model: Any) -> bool:
    """Measures one call of the UNet with the adapter and without."""
    adapter = IpAdapter(encoder=ENCODER, key="photo").inject(model)
    latents, timestep = torch.randn(ROWS, 4, SIDE, SIDE), torch.tensor(500)
    text = torch.randn(ROWS, 77, UNetConfig().text_width)
    context: dict[str, Any] = {"timestep": timestep, "text": text}
    prompted = context | {
        adapter.tokens_key: torch.randn(ROWS, 4, UNetConfig().text_width),
        adapter.scale_key: torch.tensor(1.0),
    }
    calls = {
        "bare": lambda: model.unet(latents, context=dict(context)),
        "prompted": lambda: model.unet(latents, context=dict(prompted)),
    }
    assert not torch.equal(*(call() for call in calls.values()))
    medians = milliseconds(calls, 15)
    adapter.eject()
    print(f"one call: bare {medians['bare']:.0f} ms, prompted {medians['prompted']:.0f} ms")
    title = f"forward with an IP-Adapter / without, {SIDE}x{SIDE}, batch {ROWS}"
    return reported(title, medians["prompted"] / medians["bare"], "", 1.01 * THEORY)


def swapping(model: Any) -> bool:
    """Measures a swap of the weights of two adapters that are both in memory."""
    worn = IpAdapter(encoder=ENCODER, key="photo").inject(model)
    other = IpAdapter(encoder=ENCODER, key="other").inject(model).eject()
    swap = milliseconds({"swap": lambda: worn.hotswap(other)}, 41)["swap"]
    worn.eject()
    return reported("hotswap of two resident IP-Adapters", swap, "ms", 2)


def main() -> bool:
    model = sd15.build(device="meta").to_empty(device="cpu")
    for weight in model.unet.parameters():
        weight.normal_(std=0.02)
    model.eval().requires_grad_(False)
    return all([calling(model), swapping(model)])


if __name__ == "__main__":
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # so that no measured call pays for traversing imported modules
    with torch.no_grad():
        kept = main()
    raise SystemExit(0 if kept else 1)
