"""ControlNets from the Hub compute what diffusers' ControlNets and pipelines compute."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from inspect import signature
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import refiners
import torch
from diffusers import (
    ControlNetModel,
    ControlNetUnionModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLControlNetUnionPipeline,
)
from safetensors.torch import save
from torch import Tensor

from refiners_core import Condition
from refiners_core.models.formats.open import open_folder

from .ldm_control import ldm_named
from .tiny_hub import serving

PROMPTS = ["a red circle on blue", "two cats"]
FILE = "diffusion_pytorch_model.safetensors"
SMALL = {
    "down_block_types": ("DownBlock2D",) * 3,
    "mid_block_type": "UNetMidBlock2D",
    "transformer_layers_per_block": 1,
}
UNIONS = ("controlnet-union", "controlnet-union-promax")
V11 = "lllyasviel/control_v11"
QRCODE = "monster-labs/control_v1p_sd15_qrcode_monster"
UNION = "xinsir/controlnet-union-sdxl-1.0"


class Row(NamedTuple):
    """An adapter of the manifest, and the network that it is in miniature."""

    name: str
    family: str
    repository: str
    file: str = FILE
    changes: Mapping[str, Any] = MappingProxyType({})
    is_ldm: bool = False


OF_QRCODE = "v2/control_v1p_sd15_qrcode_monster_v2.safetensors"
OF_PROMAX = "diffusion_pytorch_model_promax.safetensors"
OF_SMALL = "diffusers/controlnet-canny-sdxl-1.0-small"
ROWS = {
    row.name: row
    for row in (
        Row("controlnet-canny", "sd15", f"{V11}p_sd15_canny"),
        Row(
            "controlnet-shuffle",
            "sd15",
            f"{V11}e_sd15_shuffle",
            changes={"global_pool_conditions": True},
        ),
        Row("controlnet-qrcode-monster", "sd15", QRCODE, OF_QRCODE, is_ldm=True),
        Row("controlnet-canny-small", "sdxl", OF_SMALL, changes=SMALL),
        Row("controlnet-union", "sdxl", UNION, changes={"num_control_type": 6}),
        Row("controlnet-union-promax", "sdxl", UNION, OF_PROMAX, {"num_control_type": 8}),
    )
}


@pytest.fixture(scope="module")
def pipes(sd15_folder: Any, sdxl_folder: Any) -> dict[str, tuple[Any, Any]]:
    """Theirs and ours, by family."""
    both = {"sd15": sd15_folder, "sdxl": sdxl_folder}
    return {name: (pipe, open_folder(folder)) for name, (pipe, folder) in both.items()}


@pytest.fixture(scope="module")
def peers(pipes: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    return {row.name: network(row, pipes[row.family][0].unet) for row in ROWS.values()}


def network(row: Row, unet: Any) -> Any:
    """Returns diffusers' network of the sizes of a UNet, with random weights."""
    torch.manual_seed(7)
    is_union = row.name in UNIONS
    kind = ControlNetUnionModel if is_union else ControlNetModel
    config = dict(ControlNetModel.from_unet(unet, load_weights_from_unet=False).config)
    known = {key: config[key] for key in signature(kind).parameters if key in config}
    channels = (8, 16, 16) if row.family == "sd15" else (8, 16)
    known |= {"conditioning_embedding_out_channels": channels, **row.changes}
    if is_union:
        known |= {"num_trans_channel": 16, "num_proj_channel": 16}
    peer = kind(**known).eval()
    for weight in peer.parameters():
        fan = 1.0 if weight.ndim == 1 else weight[0].numel() ** -0.5
        weight.data = torch.randn(weight.shape) * (0.1 if weight.ndim == 1 else 1.3 * fan)
    return peer


@pytest.fixture(scope="module")
def hub(peers: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    content: dict[tuple[str, str], bytes] = {}
    for row in ROWS.values():
        tensors = dict(peers[row.name].state_dict())
        if row.is_ldm:
            tensors = {f"control_model.{key}": t for key, t in ldm_named(tensors).items()}
        content[row.repository, row.file] = save({k: v.contiguous() for k, v in tensors.items()})
    with serving(tmp_path_factory.mktemp("site"), {"refiners_controlnet": content}):
        yield


@cache
def picture(side: int, seed: int = 2) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(seed))


NOISE = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
COMMON = {
    "guidance_scale": 5.0,
    "latents": NOISE,
    "output_type": "latent",
}


def theirs(kind: Any, pipe: Any, peer: Any, steps: int, **options: Any) -> Tensor:
    parts = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
    extra = (
        {"requires_safety_checker": False} if pipe.components.get("text_encoder_2") is None else {}
    )
    made = kind(**parts, controlnet=peer, **extra)
    made.set_progress_bar_config(disable=True)
    return made(
        PROMPTS, negative_prompt=["dull", "x"], num_inference_steps=steps, **COMMON, **options
    ).images


def ours(model: Any, steps: int, conditions: Any) -> Tensor:
    return model.generate(
        PROMPTS,
        negative_prompt=["dull", "x"],
        conditions=conditions,
        steps=steps,
        guidance=5.0,
        latents=NOISE,
        output="latents",
        progress=False,
    )


class Case(NamedTuple):
    """Adapters with their options and conditions, and the same for diffusers' pipeline."""

    adapters: dict[str, dict[str, Any]]
    conditions: Callable[[Tensor, Tensor], list[Any]]
    options: Callable[[Tensor, Tensor], dict[str, Any]]
    kind: Any = StableDiffusionControlNetPipeline
    steps: int = 4


XL, TOGETHER = StableDiffusionXLControlNetPipeline, StableDiffusionXLControlNetUnionPipeline
CASES = {
    "a span": Case(
        {"controlnet-canny": {}},
        lambda a, b: [Condition(a, scale=0.8, start=0.1, end=0.7)],
        lambda a, b: {
            "image": a,
            "controlnet_conditioning_scale": 0.8,
            "control_guidance_start": 0.1,
            "control_guidance_end": 0.7,
        },
        steps=8,
    ),
    "guess mode": Case(
        {"controlnet-canny": {"guess": "diffusers"}},
        lambda a, b: [Condition(a, scale=0.9)],
        lambda a, b: {"image": a, "guess_mode": True, "controlnet_conditioning_scale": 0.9},
    ),
    "pooled": Case(
        {"controlnet-shuffle": {}}, lambda a, b: [a], lambda a, b: {"image": a, "guess_mode": True}
    ),
    "two at once": Case(
        {"controlnet-canny": {}, "controlnet-qrcode-monster": {}},
        lambda a, b: [Condition(a, end=0.5), Condition(b, scale=0.6)],
        lambda a, b: {
            "image": [a, b],
            "controlnet_conditioning_scale": [1.0, 0.6],
            "control_guidance_end": [0.5, 1.0],
        },
    ),
    "a small network in guess mode": Case(
        {"controlnet-canny-small": {"guess": "diffusers"}},
        lambda a, b: [a],
        lambda a, b: {"image": a, "guess_mode": True, "controlnet_conditioning_scale": 1.0},
        XL,
    ),
    "one type of a union": Case(
        {"controlnet-union": {}},
        lambda a, b: [Condition({"canny": a}, scale=0.7)],
        lambda a, b: {
            "control_image": [a],
            "control_mode": [3],
            "controlnet_conditioning_scale": 0.7,
        },
        TOGETHER,
    ),
    "three types of a union": Case(
        {"controlnet-union-promax": {}},
        lambda a, b: [
            Condition({"tile": Condition(b, scale=0.5), "openpose": a, "depth": 1 - a}, scale=0.9)
        ],
        lambda a, b: {
            "control_image": [b, a, 1 - a],
            "control_mode": [6, 0, 1],
            "controlnet_conditioning_scale": [0.45, 0.9, 0.9],
        },
        TOGETHER,
        20,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_whole_generation_equals_that_of_diffusers(
    name: str, hub: None, peers: dict[str, Any], pipes: dict[str, tuple[Any, Any]], differ: Any
) -> None:
    case = CASES[name]
    pipe, model = pipes[ROWS[next(iter(case.adapters))].family]
    side = 64 if case.kind is StableDiffusionControlNetPipeline else 32
    pictures = picture(side), picture(side, 3)
    chosen = [peers[adapter] for adapter in case.adapters]
    peer = chosen[0] if len(chosen) == 1 else chosen
    expected = theirs(case.kind, pipe, peer, case.steps, **case.options(*pictures))
    worn = [refiners.load_adapter(key, model, **o) for key, o in case.adapters.items()]
    try:
        conditions = dict(zip(worn, case.conditions(*pictures), strict=True))
        made = ours(model, case.steps, conditions)
    finally:
        model.eject_all()
    assert differ(made, expected) <= 1e-4


@torch.no_grad()
@pytest.mark.parametrize("name", ROWS)
def test_a_network_equals_the_peers(
    name: str, hub: None, peers: dict[str, Any], pipes: dict[str, tuple[Any, Any]], differ: Any
) -> None:
    row, t = ROWS[name], torch.tensor(321)
    pipe, model = pipes[row.family]
    pixels = picture(64 if row.family == "sd15" else 32)
    x, text = torch.randn(2, 4, 16, 16), torch.randn(2, 7, pipe.unet.config.cross_attention_dim)
    more = {"text_embeds": torch.randn(2, 24), "time_ids": torch.rand(2, 6) * 99}
    options: dict[str, Any] = {"controlnet_cond": pixels, "conditioning_scale": 0.7}
    value: Any = pixels
    if name in UNIONS:
        types = torch.zeros(2, row.changes["num_control_type"])
        types[:, 1] = 1
        options |= {"controlnet_cond": [pixels], "control_type": types, "control_type_idx": [1]}
        value = {"depth": pixels}
    skips, mid = peers[name](x, t, text, added_cond_kwargs=more, return_dict=False, **options)
    adapter = refiners.load_adapter(name, model)
    try:
        encoded = adapter.encode(value, request_of(model, pixels.shape[-1]))
        context = {
            key: branches["cond"].expand(2, *branches["cond"].shape[1:])
            for key, branches in encoded.items()
        }
        context |= {"timestep": t, "text": text, "pooled": more["text_embeds"]}
        context |= {"time_ids": more["time_ids"], adapter.scale_key: torch.tensor(0.7)}
        outputs = adapter.parts.network(x, context=context)
    finally:
        adapter.eject()
    scaled = [0.7 * output for output in outputs]  # by the edits, where they are added
    assert max(map(differ, scaled, (*skips, mid))) <= 1e-5
    again, kept = adapter.published(), peers[name].state_dict()
    if not row.is_ldm:
        assert again.keys() == kept.keys()
        assert all(torch.equal(again[key], kept[key]) for key in kept)


def request_of(model: Any, side: int) -> Any:
    from refiners_core.models.diffusion import GenerationRequest

    return GenerationRequest(
        model=model, count=2, branches=("cond",), height=side, width=side, latent_height=16,
        latent_width=16, dtype=torch.float32, device=torch.device("cpu"),
    )  # fmt: skip
