"""StyleAligned, held to its paper (arXiv:2312.02133) inside diffusers' networks."""

from typing import Any, NamedTuple

import pytest
import refiners
import torch
from torch import Tensor

from refiners_core import Condition
from refiners_core.models.formats.open import open_folder

PROMPTS = ["a red circle on blue", "two cats", "a star"]
COUNT = len(PROMPTS)


class Share(NamedTuple):
    """The settings of the attention processor: numbers of the paper, and its strength."""

    share: float = 1.0
    shift: float = 0.0
    strength: float = 1.0


class PaperProcessor:
    """A self-attention of diffusers, a picture and a head at a time, written from the paper."""

    def __init__(self, numbers: Share) -> None:
        self.numbers = numbers

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        project = (attn.to_q, attn.to_k, attn.to_v)
        rows: list[Tensor] = []
        for branch in hidden_states.split(COUNT):
            reference = [layer(branch[0]) for layer in project]
            for i, picture in enumerate(branch):
                q, k, v = (layer(picture) for layer in project)
                seen = softly(q, k, v, attn.heads, torch.zeros(len(k)))
                if i > 0:
                    shared = self.shared((q, k, v), reference, attn.heads)
                    seen = seen + self.numbers.strength * (shared - seen)
                rows.append(attn.to_out[0](seen))
        return torch.stack(rows)

    def shared(self, target: tuple[Tensor, ...], reference: list[Tensor], heads: int) -> Tensor:
        """Equations 3 and 4, with the scale and the shift of the authors' code."""
        (q, k, v), (q_r, k_r, v_r) = target, reference
        keys = torch.cat([adain(k, k_r), self.numbers.share * k_r])
        logits = torch.cat([torch.zeros(len(k)), torch.full((len(k_r),), self.numbers.shift)])
        return softly(adain(q, q_r), keys, torch.cat([v, v_r]), heads, logits)


def adain(x: Tensor, y: Tensor) -> Tensor:
    """Gives `x` the mean and the deviation of `y` over the tokens."""
    deviations = [(item.var(0) + 1e-5) ** 0.5 for item in (x, y)]
    return deviations[1] * (x - x.mean(0)) / deviations[0] + y.mean(0)


def softly(q: Tensor, k: Tensor, v: Tensor, heads: int, logits: Tensor) -> Tensor:
    parts = (x.chunk(heads, dim=1) for x in (q, k, v))
    width = q.shape[1] // heads
    return torch.cat(
        [(a @ b.T / width**0.5 + logits).softmax(1) @ c for a, b, c in zip(*parts, strict=True)],
        dim=1,
    )


@pytest.fixture(scope="module", params=["sd15_folder", "sdxl_folder"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """Theirs, and ours read from the folder that theirs was saved to."""
    pipe, folder = request.getfixturevalue(request.param)
    return pipe, open_folder(folder)


class Restored:
    """Their network with the paper's attention for the length of a `with` block."""

    def __init__(self, unet: Any, numbers: Share) -> None:
        self.unet, self.numbers = unet, numbers

    def __enter__(self) -> None:
        self.plain = dict(self.unet.attn_processors)
        paper = PaperProcessor(self.numbers)
        self.unet.set_attn_processor(
            {n: paper if ".attn1." in n else item for n, item in self.plain.items()}
        )

    def __exit__(self, *_: object) -> None:
        self.unet.set_attn_processor(self.plain)


@torch.no_grad()
@pytest.mark.parametrize("numbers", [Share(), Share(1.3, 0.8), Share(0.5, -1.0, 0.6)])
def test_a_network_equals_the_paper(pair: Any, numbers: Share, differ: Any) -> None:
    pipe, model = pair
    rows, t = 2 * COUNT, torch.tensor(321)
    x, text = (
        torch.randn(rows, 4, 16, 16),
        torch.randn(rows, 7, pipe.unet.config.cross_attention_dim),
    )
    more = {"text_embeds": torch.randn(rows, 24), "time_ids": torch.rand(rows, 6) * 99}
    with Restored(pipe.unet, numbers):
        theirs = pipe.unet(x, t, text, added_cond_kwargs=more).sample
    options = {"share": numbers.share, "shift": numbers.shift}
    adapter = refiners.load_adapter("style-aligned", **options)
    context = {"timestep": t, "text": text, "branches": ("uncond", "cond")}
    context |= {"pooled": more["text_embeds"], "time_ids": more["time_ids"]}
    with adapter.on(model):
        context[adapter.scale_key] = torch.tensor(numbers.strength)
        ours = model.unet(x, context=context)
    assert differ(ours, theirs) <= 1e-5
    assert differ(pipe.unet(x, t, text, added_cond_kwargs=more).sample, theirs) > 1e-3


@pytest.mark.parametrize(
    ("steps", "has_picture"), [pytest.param(20, False, marks=pytest.mark.slow), (6, True)]
)
def test_a_whole_generation_equals_the_paper(
    pair: Any, differ: Any, steps: int, has_picture: bool
) -> None:
    """A picture is inverted, and takes the place of the first one at each step."""
    pipe, model = pair
    numbers = Share(1.3, 0.8, 0.6)
    noise = torch.randn(COUNT, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    side = 16 * model.autoencoder.config.reduction
    picture = torch.rand(3, side, side) if has_picture else None
    options = {"steps": steps, "guidance": 2.0, "progress": False}
    path = model.invert(picture, PROMPTS[0], **options) if has_picture else None

    def placed(_: Any, step: int, __: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
        if path is not None:
            values["latents"][0] = path[step + 1]
        return values

    arguments = {
        "num_inference_steps": steps,
        "guidance_scale": 5.0,
        "callback_on_step_end": placed,
    }
    start = noise if path is None else torch.cat([path[:1], noise[1:]])
    with Restored(pipe.unet, numbers):
        theirs = pipe(PROMPTS, latents=start, **arguments, output_type="latent").images
    options = {"share": numbers.share, "shift": numbers.shift}
    with refiners.load_adapter("style-aligned", **options).on(model) as adapter:
        ours = model.generate(
            PROMPTS,
            conditions={adapter: Condition(picture, scale=numbers.strength)},
            steps=steps,
            guidance=5.0,
            latents=noise,
            output="latents",
            progress=False,
        )
    assert differ(ours, theirs) <= 1e-4
