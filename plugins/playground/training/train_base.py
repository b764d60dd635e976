"""Trains text encoder and UNet together on cached latents: four minutes on an H100.

Shares of the kinds of scenes decide success. Most scenes are canonical at first, which teaches the
words of shapes; later stages bind colours to the right one of two objects, fills and sizes.
`--steps 6000 --batch 48 --scale 0.1` takes two hours on one core.
"""

import itertools
import time
from collections.abc import Callable, Mapping

import torch
from base_data import CAPTIONS, Table, load_table
from captured import captured
from model import build_model, save_part
from refiners_playground.curriculum import shares
from refiners_train.engine.schedule import Schedule
from run import Run, arguments
from steady import SteadyOptimiser
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from refiners_core.models.diffusion import LatentDiffusion

COUNTS: Mapping[str, int] = {
    "canonical": 40_000,
    "placed": 30_000,
    "varied": 45_000,
    "pairs": 100_000,
    "fills": 30_000,
    "places": 45_000,
    "faces": 50_000,
}
"""The number of pictures of each kind."""
STAGES: tuple[tuple[float, Mapping[str, float]], ...] = ((0.12, shares(0.6)), (1.0, shares()))
"""Until which share of the steps each mix of kinds is drawn, and the shares of the kinds."""
TEXT_DROPPED = 0.1
MUON, ADAM, WARM, HOLD, FLOOR = 3e-3, 1.2e-3, 200, 0.4, 0.02
LOGGED, MIXED, TIMED = 250, 20, 200


class BatchMaker:
    """Draws batches from a table by random numbers of the device alone."""

    def __init__(self, table: Table, model: LatentDiffusion, batch: int, dropped: float) -> None:
        self.table, self.batch, self.dropped = table, batch, dropped
        device = table.latents.device
        counts = torch.tensor(list(table.counts.values()), device=device)
        self.counts, self.starts = counts, counts.cumsum(0) - counts
        self.limits = torch.zeros(len(counts), device=device)
        """The cumulative shares of the kinds."""
        self.empty = model.tokenize([""], {}).ids[0][0].to(device)

    def mix(self, shares: Mapping[str, float]) -> None:
        """Sets the weight of each kind; kinds without one are not drawn."""
        weights = torch.tensor([shares.get(kind, 0.0) for kind in self.table.counts])
        self.limits.copy_(weights.cumsum(0) / weights.sum())

    def draw(self) -> tuple[Tensor, Tensor]:
        """Returns latents and token ids of random scenes."""
        uniform = torch.rand(3, self.batch, device=self.limits.device)
        kinds = torch.searchsorted(self.limits, uniform[0]).clamp(max=len(self.counts) - 1)
        rows = self.starts[kinds] + (uniform[1] * self.counts[kinds]).long()
        texts = torch.randint(CAPTIONS, (self.batch,), device=self.limits.device)
        tokens = self.table.tokens[rows, texts].long()
        tokens = torch.where((uniform[2] < self.dropped).unsqueeze(1), self.empty, tokens)
        return self.table.latents[rows].float(), tokens


def choose_levels(count: int, device: torch.device) -> Tensor:
    """Returns random timesteps, three quarters of them from the range that decides shapes."""
    spread = torch.sigmoid(0.2 + torch.randn(count, device=device))
    is_even = torch.rand(count, device=device) < 0.25
    line = torch.rand(count, device=device)
    return (torch.where(is_even, line, spread) * 1000).long().clamp(0, 999)


def make_step(
    model: LatentDiffusion, maker: BatchMaker, optimiser: SteadyOptimiser, last: Tensor
) -> Callable[[], None]:
    """Returns a training step, which writes its loss into `last`."""
    alphas = model.sampler.schedule.alphas.to(last.device)
    signals, noises = alphas.sqrt(), (1 - alphas).sqrt()

    def step() -> None:
        latents, tokens = maker.draw()
        timesteps, noise = choose_levels(len(latents), last.device), torch.randn_like(latents)
        a, s = signals[timesteps].view(-1, 1, 1, 1), noises[timesteps].view(-1, 1, 1, 1)
        text = model.text_encoder(tokens, context={})
        context = {"timestep": timesteps, "text": text}
        loss = mse_loss(
            model.unet(a * latents + s * noise, context=context), a * noise - s * latents
        )
        optimiser.step(loss)
        last.copy_(loss.detach())

    return step


@torch.no_grad()
def read_marks_as_ends(model: LatentDiffusion) -> None:
    """Lets a full stop or an exclamation mark read as the end of a prompt.

    No caption has one, so that their tokens are untrained, but sentences end with them. With the
    features of the end they change nothing: what follows a caption is ends alone.
    """
    _, *ids, end = model.tokenize([". !"], {}).ids[0][0].tolist()[:4]
    table = model.text_encoder.layer("embed.token", nn.Embedding).weight
    table[ids] = table[end].clone()


def main() -> None:
    """Trains and writes fp16 weights; `refiners evaluate playground` measures them."""
    options = arguments(__doc__ or "", steps=16_000, batch=512, percent=100, seconds=0)
    device = torch.device(options.device)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    model = build_model("autoencoder").to(device)
    counts = {kind: max(64, count * options.percent // 100) for kind, count in COUNTS.items()}
    run = Run("base")
    table = load_table(model, counts).to(device)
    run.log(scenes=len(table.latents))
    maker = BatchMaker(table, model, options.batch, TEXT_DROPPED)
    learner = nn.ModuleDict({"text_encoder": model.text_encoder, "unet": model.unet})
    optimiser = SteadyOptimiser(learner, muon=MUON, adam=ADAM)
    last = torch.zeros((), device=device)
    state = None if options.fresh else run.resume()
    first = 0
    if state:
        optimiser.restore(state["optimiser"])
        first = state["step"]
        torch.manual_seed(first)
    maker.mix(STAGES[0][1])
    step = captured(make_step(model, maker, optimiser, last), device)
    total, started = options.steps, time.monotonic()
    for index in itertools.count(first):
        if index == first + TIMED and options.seconds:
            last.item()  # waits for the device
            total = int((index - first) * options.seconds / (time.monotonic() - started))
            run.log(step=index, steps=total)
        if index >= total:
            break
        if index % MIXED == 0 or index == first:
            maker.mix(next(shares for until, shares in STAGES if index < until * total))
        optimiser.factor.fill_(Schedule(total, WARM, HOLD, FLOOR)(index))
        step()
        if index % LOGGED == 0:
            run.log(step=index, loss=last.item(), wall=time.monotonic() - started)
        if run.is_due():
            run.save({"optimiser": optimiser.state(), "step": index + 1})
    learner.load_state_dict(optimiser.averaged())
    read_marks_as_ends(model)
    save_part(model, "text_encoder")
    save_part(model, "unet")
    run.log(step=total, wall=time.monotonic() - started)


if __name__ == "__main__":
    main()
