"""ELLA from the Hub computes the formulas of the paper, written out on the tensors of the file."""

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
import refiners
import torch
import transformers
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from refiners_core.models.formats.open import open_folder
from refiners_core.testing import tiny_t5_tokenizer

from .tiny_hub import serving

WIDTH, FEATURES, TOKENS, LAYERS, HEADS, WAVES = 16, 24, 5, 2, 8, 12
T5 = {
    "vocab_size": 110, "d_model": FEATURES, "d_ff": 40, "num_layers": 2, "num_heads": 4,
    "d_kv": 8, "feed_forward_proj": "gated-gelu",
}  # fmt: skip
FOLDER = "models--google--flan-t5-xl--text_encoder"
PROMPTS, NEGATIVES = ["a red circle on a blue square", "two cats"], ["dull", ""]


def random_tensors(
    width: int = WIDTH,
    features: int = FEATURES,
    tokens: int = TOKENS,
    layers: int = LAYERS,
    waves: int = WAVES,
    std: float = 0.3,
) -> dict[str, Tensor]:
    """Returns tensors with the names and relative shapes of the release."""
    shapes: dict[str, tuple[int, ...]] = {
        "time_embedding.linear_1.weight": (width, waves),
        "time_embedding.linear_2.weight": (width, width),
        "connector.latents": (tokens, width),
        "connector.time_aware_linear.weight": (width, width),
        "connector.proj_in.weight": (width, features),
    }
    for i in range(layers):
        block = f"connector.perceiver_blocks.{i}"
        shapes |= {
            f"{block}.{n}.linear.weight": (2 * width, width) for n in ("ln_1", "ln_2", "ln_ff")
        }
        shapes |= {f"{block}.attn.in_proj_weight": (3 * width, width)}
        shapes |= {f"{block}.attn.out_proj.weight": (width, width)}
        shapes |= {f"{block}.mlp.c_fc.weight": (4 * width, width)}
        shapes |= {f"{block}.mlp.c_proj.weight": (width, 4 * width)}
    for name, shape in [*shapes.items()]:
        if name != "connector.latents":
            shapes[name.removesuffix("weight") + "bias"] = shape[:1]
    noise = torch.Generator().manual_seed(5)
    return {name: torch.randn(shape, generator=noise) * std for name, shape in shapes.items()}


def tokens_of(tensors: Mapping[str, Tensor], features: Tensor, timestep: float) -> Tensor:
    """Returns the tokens of one text at one timestep, (tokens, width)."""

    def affine(name: str, x: Tensor) -> Tensor:
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    width = tensors["connector.latents"].shape[1]
    half = tensors["time_embedding.linear_1.weight"].shape[1] // 2
    angles = timestep * torch.exp(torch.arange(half) * (-math.log(10000) / half))
    time = affine("time_embedding.linear_1", torch.cat([angles.cos(), angles.sin()]))
    time = F.silu(affine("time_embedding.linear_2", F.silu(time)))

    def norm(name: str, x: Tensor) -> Tensor:
        shift, scale = affine(f"{name}.linear", time).split(width)
        centred = x - x.mean(-1, keepdim=True)
        return (
            centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + scale) + shift
        )

    text = affine("connector.proj_in", features)
    x = tensors["connector.latents"] + affine("connector.time_aware_linear", time)
    for i in range(sum(key.endswith("c_fc.weight") for key in tensors)):
        block = f"connector.perceiver_blocks.{i}"
        queries = norm(f"{block}.ln_1", x)
        keys = torch.cat([queries, norm(f"{block}.ln_2", text)])
        weights = tensors[f"{block}.attn.in_proj_weight"].chunk(3)
        biases = tensors[f"{block}.attn.in_proj_bias"].chunk(3)
        q, k, v = (
            (y @ w.T + b).view(len(y), HEADS, -1).transpose(0, 1)
            for y, w, b in zip((queries, keys, keys), weights, biases, strict=True)
        )
        heads = (q @ k.transpose(1, 2) / (width // HEADS) ** 0.5).softmax(-1) @ v
        x = x + affine(f"{block}.attn.out_proj", heads.transpose(0, 1).reshape(x.shape))
        inner = affine(f"{block}.mlp.c_fc", norm(f"{block}.ln_ff", x)).clamp(min=0) ** 2
        x = x + affine(f"{block}.mlp.c_proj", inner)
    return x


@pytest.fixture(scope="module")
def peer() -> Any:
    torch.manual_seed(0)
    peer = transformers.T5EncoderModel(transformers.T5Config(**T5)).eval()
    for weight in peer.parameters():
        weight.data = torch.randn(weight.shape) * 0.3
    return peer


@pytest.fixture(scope="module")
def hub(peer: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("ella")
    tiny_t5_tokenizer()._model.save(str(folder / "tokenizer.json"))
    state = {key: v for key, v in peer.state_dict().items() if "embed_tokens" not in key}
    repository = "QQGYLab/ELLA"
    content = {
        (repository, "ella-sd1.5-tsc-t5xl.safetensors"): save(random_tensors()),
        (repository, f"{FOLDER}/model.safetensors"): save(state),
        (repository, f"{FOLDER}/config.json"): json.dumps(peer.config.to_dict()).encode(),
        (repository, f"{FOLDER}/tokenizer.json"): (folder / "tokenizer.json").read_bytes(),
    }
    with serving(folder, {"refiners_ella": content}) as served:
        yield served


@torch.no_grad()
def features_of(peer: Any, text: str, tokens: int | None) -> Tensor:
    """Returns T5's features of a text, padded to a number of tokens as in the training."""
    ids, mask = tiny_t5_tokenizer().rows([text], tokens)
    return peer(ids, attention_mask=mask).last_hidden_state[0]


@torch.no_grad()
def walked(pipe: Any, peer: Any, noise: Tensor, tokens: int | None, steps: int) -> Tensor:
    """Returns the latents of a generation that is written out, a text at a time."""
    tensors, scheduler = random_tensors(), pipe.scheduler
    texts = [features_of(peer, text, tokens) for text in (*NEGATIVES, *PROMPTS)]
    scheduler.set_timesteps(steps)
    x = noise
    for t in scheduler.timesteps:
        rows = torch.stack([tokens_of(tensors, text, float(t)) for text in texts])
        negative, positive = pipe.unet(torch.cat([x, x]), t, rows).sample.chunk(2)
        x = scheduler.step(negative + 5.0 * (positive - negative), t, x).prev_sample
    return x


@pytest.mark.parametrize(
    ("tokens", "steps"), [pytest.param(None, 20, marks=pytest.mark.slow), (40, 4)]
)
def test_a_generation_equals_the_formulas(
    tokens: int | None, steps: int, hub: Any, peer: Any, sd15_folder: Any, differ: Any
):
    pipe, folder = sd15_folder
    model = open_folder(folder)
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    with refiners.load_adapter("ella", tokens=tokens).on(model):
        made = model.generate(
            PROMPTS, negative_prompt=NEGATIVES, steps=steps, guidance=5.0, latents=noise,
            output="latents", progress=False,
        )  # fmt: skip
    assert differ(made, walked(pipe, peer, noise, tokens, steps)) <= 1e-4


@torch.no_grad()
def test_its_tokens_equal_the_formulas_and_its_file_is_written_again(
    hub: Any, peer: Any, sd15_folder: Any, differ: Any
):
    adapter = refiners.load_adapter("ella").inject(open_folder(sd15_folder[1]))
    features = features_of(peer, PROMPTS[0], None)
    for timestep in (980, 20):
        context = {adapter.features_key: features[None], "timestep": torch.tensor(timestep)}
        made = adapter.connector(None, context=context)[0]
        assert differ(made, tokens_of(random_tensors(), features, timestep)) <= 1e-5
    saved, tensors = adapter.published(), random_tensors()
    assert {key: v.shape for key, v in saved.items()} == {
        key: v.shape for key, v in tensors.items()
    }
    assert all(torch.equal(saved[key], tensors[key]) for key in tensors)
