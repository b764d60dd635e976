"""Compares a training step of a LoRA with that of diffusers' script with PEFT and accelerate.

Run `python benchmarks/training.py`. Both train the same layers of models that share their weights,
with the same rank, loss and optimiser, and take turns in one process, on one thread. It prints
medians and their ratios, and exits with 1 if a bar is missed. `--small` skips Stable Diffusion 1.5,
which takes 8 GB.

A step reads texts, adds noise to given latents, and moves the weights of the LoRA. Texts are tokens
already in diffusers' step, as in its script; in ours they are texts.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import refiners
import torch
from accelerate import Accelerator
from core import milliseconds
from diffusers import DDPMScheduler
from peft import LoraConfig
from refiners_lora.adapter import Lora
from refiners_train import Batch, Config
from refiners_train.data.loading import Place
from refiners_train.engine.device import build_accelerator
from refiners_train.engine.diffusion import Diffusion
from refiners_train.engine.learner import Learners, base_weights
from refiners_train.engine.loop import Loop
from torch.nn.functional import mse_loss

from refiners_core.models import sd15
from refiners_core.models.clip import ClipTextConfig, ClipTokenizer
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.formats import to_diffusers

RANK = 16
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
RATE, BETAS, CLIP = 1e-4, (0.9, 0.999), 1.0


class Case(NamedTuple):
    """The model and the batch of a comparison."""

    name: str
    model: Callable[[], LatentDiffusion]
    rows: int
    side: int
    rounds: int


def playground() -> LatentDiffusion:
    return refiners.load_model("playground", dtype="float32")


def random_sd15() -> LatentDiffusion:
    """Builds Stable Diffusion 1.5 with random weights and a tokenizer of letters."""
    letters = [chr(letter) for letter in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += [f"{number}" for number in range(ClipTextConfig().vocabulary - len(words) - 2)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = ClipTokenizer({word: i for i, word in enumerate(words)}, [], length=77)
    model = sd15.build(device="meta", tokenizer=tokenizer).to_empty(device="cpu")
    noise = torch.randn(1_000_003) * 0.02
    for weight in model.parameters():
        repeats = -(-weight.numel() // len(noise))
        weight.data.copy_(noise.repeat(repeats)[: weight.numel()].view_as(weight))
    return model


CASES = (
    Case("playground, batch 16, 16x16 latents", playground, 16, 16, 31),
    Case("Stable Diffusion 1.5, batch 1, 16x16 latents", random_sd15, 1, 16, 9),
)
BAR = 0.95
"""The largest share of the time of diffusers' step."""


def batches(case: Case, channels: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(0)
    shape = (case.rows, channels, case.side, case.side)
    while True:
        latents = torch.randn(shape, generator=generator)
        yield Batch(texts=["a red heart on a blue background"] * case.rows, latents=latents)


def our_step(model: LatentDiffusion, case: Case) -> tuple[Loop, Callable[[], Any]]:
    """Returns the loop of this package, and a call that takes a step."""
    config = msgspec.convert(
        {
            "output": "unused",
            "base": {"model": "unused"},
            "adapter": {"name": "lora"},
            "data": {"source": "unused:unused"},
            "train": {
                "steps": 10_000,
                "batch": case.rows,
                "learning-rate": RATE,
                "betas": BETAS,
                "weight-decay": 1e-2,
                "clip": CLIP,
                "hold": 1.0,
            },
        },
        Config,
    )
    base = base_weights(model)
    adapter = Lora(rank=RANK).inject(model)
    learners = Learners(base, adapter)
    loop = Loop(
        build_accelerator("cpu", "float32"),
        learners,
        Diffusion(model, adapter, config),
        config.train,
    )
    place = Place(0, tuple(range(case.rows)), 0, case.rows)
    order = batches(case, model.autoencoder.config.latent_channels)
    return loop, lambda: loop.take(place, next(order))


def their_step(pipe: Any, case: Case, channels: int) -> tuple[Any, Callable[[], Any]]:
    """Returns a call that gives the loss of rows, and a call that takes a step of the script
    `train_text_to_image_lora.py` of diffusers."""
    accelerator = Accelerator(cpu=True)
    unet, encoder = pipe.unet, pipe.text_encoder
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    for part in (unet, encoder):
        part.requires_grad_(False)
    unet.add_adapter(
        LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights=True, target_modules=TARGETS)
    )
    weights = [weight for weight in unet.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=RATE, betas=BETAS, weight_decay=1e-2, eps=1e-8)
    rates = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0)
    unet, optimiser, rates = accelerator.prepare(unet, optimiser, rates)
    ids = pipe.tokenizer(
        ["a red heart on a blue background"] * case.rows,
        padding="max_length",
        max_length=pipe.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids

    def loss_of(latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> Any:
        noised = schedule.add_noise(latents, noise, timesteps)
        text = encoder(ids, return_dict=False)[0]
        predicted = unet(noised, timesteps, text, return_dict=False)[0]
        is_velocity = schedule.config.prediction_type == "v_prediction"
        target = schedule.get_velocity(latents, noise, timesteps) if is_velocity else noise
        return mse_loss(predicted.float(), target.float(), reduction="mean")

    order = batches(case, channels)

    def step() -> None:
        with accelerator.accumulate(unet):
            latents = next(order).latents
            assert latents is not None
            timesteps = torch.randint(0, schedule.config.num_train_timesteps, (case.rows,))
            loss = loss_of(latents, torch.randn_like(latents), timesteps)
            accelerator.gather(loss.repeat(case.rows)).mean()
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(weights, CLIP)
            optimiser.step()
            rates.step()
            optimiser.zero_grad()

    return loss_of, step


def compare(case: Case) -> bool:
    """Prints the figures of a case; returns whether its bar is kept."""
    torch.manual_seed(0)
    model = case.model().eval()
    channels = model.autoencoder.config.latent_channels
    pipe = to_diffusers(model)
    loss_of, theirs = their_step(pipe, case, channels)
    loop, ours = our_step(model, case)
    batch = next(batches(case, channels))
    drawn = loop.objective.draw(batch, case.rows, torch.Generator().manual_seed(1))
    with torch.no_grad():
        one = loop.objective.sums(batch, drawn)[0] / case.rows
        other = loss_of(batch.latents, drawn["noise"], drawn["timesteps"])
    assert abs(one - other) <= 1e-4 * abs(other), f"the losses differ: {one} and {other}"
    median = milliseconds({"diffusers": theirs, "ours": ours}, case.rounds)
    ratio = median["ours"] / median["diffusers"]
    print(
        f"{case.name:<46} ours {median['ours']:8.1f} ms diffusers {median['diffusers']:8.1f} ms "
        f"ratio {ratio:5.2f} bar {BAR:4.2f} {'kept' if ratio <= BAR else 'MISSED'}",
        flush=True,
    )
    return ratio <= BAR


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="skip the official size")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = [compare(case) for case in (CASES[:1] if options.small else CASES)]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    raise SystemExit(main())
