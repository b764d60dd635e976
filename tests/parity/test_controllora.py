"""Control-LoRAs and ControlNets of differences, held to a dense ControlNet built by hand.

The oracle is the formula, in straight lines: each weight is the base's plus `up @ down`, or plus
the difference; every other tensor is the file's. diffusers' own loader drops replaced biases.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import refiners
import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLControlNetPipeline,
)
from safetensors.torch import save, save_file
from torch import Tensor

from refiners_core import Condition
from refiners_core.models.formats.open import open_folder

from .ldm_control import ldm_named
from .tiny_hub import serving

RANK = 3
SHARED = ("time_embedding", "add_embedding", "conv_in", "down_blocks", "mid_block")
SD15 = "comfyanonymous/ControlNet-v1-1_fp16_safetensors"
SDXL = "control-LoRAs-rank256/control-lora-canny-rank256.safetensors"
FILES = {
    "sd15": (SD15, "control_lora_rank128_v11p_sd15_canny_fp16.safetensors"),
    "sdxl": ("stabilityai/control-lora", SDXL),
}
KINDS = {"sd15": StableDiffusionControlNetPipeline, "sdxl": StableDiffusionXLControlNetPipeline}
CHANNELS = {"sd15": (8, 16, 16), "sdxl": (8, 16)}
SIDES = {"sd15": 64, "sdxl": 32}


def random(shape: torch.Size, scale: float = 0.1) -> Tensor:
    return torch.randn(shape) * scale


def blank(family: str, unet: Any) -> ControlNetModel:
    """Returns a ControlNet with the base's weights where both have some."""
    return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=CHANNELS[family])


def control_lora(family: str, unet: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns the tensors of a file, and those of the dense ControlNet that they mean."""
    torch.manual_seed(11)
    dense: dict[str, Tensor] = dict(blank(family, unet).state_dict())
    file: dict[str, Tensor] = {}
    names = dict(zip(dense, ldm_named({key: key for key in dense}), strict=True))
    for key, base in dense.items():
        if key.startswith(SHARED) and base.ndim > 1:
            module = names[key].removesuffix(".weight")
            rank = min(RANK, len(base), base[0].numel())
            up, down = random((len(base), rank), 0.3), random((rank, *base.shape[1:]), 0.3)
            file[f"{module}.up"] = up[..., None, None] if base.ndim == 4 else up
            file[f"{module}.down"] = down
            dense[key] = base + (up @ down.flatten(1)).view(base.shape)
        else:
            around = 1.0 if "norm" in key and key.endswith("weight") else 0.0
            dense[key] = file[names[key]] = around + random(base.shape)
    return {**file, "lora_controlnet": torch.zeros(0)}, dense


@pytest.fixture(scope="module")
def pipes(sd15_folder: Any, sdxl_folder: Any) -> dict[str, tuple[Any, Any]]:
    both = {"sd15": sd15_folder, "sdxl": sdxl_folder}
    return {name: (pipe, open_folder(folder)) for name, (pipe, folder) in both.items()}


@pytest.fixture(scope="module")
def peers(
    pipes: dict[str, tuple[Any, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, dict[str, Tensor]]]:
    """The tensors of the dense ControlNets, while a Hub serves the Control-LoRAs."""
    both = {family: control_lora(family, pipe.unet) for family, (pipe, _) in pipes.items()}
    served = {FILES[family]: save(file) for family, (file, _) in both.items()}
    with serving(
        tmp_path_factory.mktemp("site"), {"refiners_controllora": served, "refiners_controlnet": {}}
    ):
        yield {family: dense for family, (_, dense) in both.items()}


@pytest.mark.parametrize("family", ["sd15", pytest.param("sdxl", marks=pytest.mark.slow)])
def test_a_whole_generation_equals_that_of_the_dense_network(
    family: str, peers: dict[str, dict[str, Tensor]], pipes: Any, differ: Any
) -> None:
    pipe, model = pipes[family]
    peer = blank(family, pipe.unet)
    peer.load_state_dict(peers[family])
    parts = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
    if family == "sd15":
        parts["requires_safety_checker"] = False
    theirs = KINDS[family](**parts, controlnet=peer)
    theirs.set_progress_bar_config(disable=True)
    noise, pixels = torch.randn(1, 4, 16, 16), torch.rand(1, 3, SIDES[family], SIDES[family])
    expected = theirs(
        "a cat",
        image=pixels,
        num_inference_steps=6,
        guidance_scale=5.0,
        latents=noise,
        output_type="latent",
        controlnet_conditioning_scale=0.8,
    ).images
    with refiners.load_adapter("control-lora-canny").on(model) as adapter:
        made = model.generate(
            "a cat",
            conditions={adapter: Condition(pixels, scale=0.8)},
            steps=6,
            guidance=5.0,
            latents=noise,
            output="latents",
            progress=False,
        )
    assert differ(made, expected) <= 1e-4


@torch.no_grad()
@pytest.mark.parametrize("family", FILES)
def test_the_network_equals_the_dense_one_on_the_current_base(
    family: str, peers: dict[str, dict[str, Tensor]], pipes: Any, differ: Any
) -> None:
    pipe, model = pipes[family]
    with refiners.load_adapter("control-lora-canny").on(model) as adapter:
        outputs = run(adapter, model, family)
        peer = blank(family, pipe.unet)
        peer.load_state_dict(peers[family])
        assert max(map(differ, outputs, dense_run(peer, family))) <= 1e-5
        # The base changes in place: the difference stays the same.
        changed = {key: dense.clone() for key, dense in peers[family].items()}
        weight = model.unet.layer("mid.resnet_0.body.conv_1").weight
        kept = weight.clone()
        weight += 0.1
        changed["mid_block.resnets.0.conv1.weight"] += 0.1
        peer.load_state_dict(changed)
        assert max(map(differ, run(adapter, model, family), dense_run(peer, family))) <= 1e-5
        weight.copy_(kept)
        assert all(map(torch.equal, run(adapter, model, family), outputs))


@torch.no_grad()
@pytest.mark.parametrize("is_ldm", [True, False])
def test_a_difference_is_added_to_the_current_base_once(
    is_ldm: bool, peers: Any, pipes: Any, differ: Any, tmp_path: Any
) -> None:
    family = "sd15"
    pipe, model = pipes[family]
    peer = blank(family, pipe.unet)
    dense = {key: value + random(value.shape) for key, value in peer.state_dict().items()}
    base = dict(pipe.unet.state_dict())
    file = {k: v - base[k] if k.startswith(SHARED) else v for k, v in dense.items()}
    if is_ldm:
        file = {f"control_model.{key}": value for key, value in ldm_named(file).items()}
    save_file({**file, "difference": torch.zeros(0)}, tmp_path / "diff.safetensors")
    peer.load_state_dict(dense)
    adapter = refiners.load_adapter("controlnet", file=tmp_path / "diff.safetensors")
    expected = dense_run(peer, family)
    for _ in range(2):  # a second inject adds nothing twice
        with adapter.on(model):
            outputs = run(adapter, model, family)
            assert max(map(differ, outputs, expected)) <= 1e-5
    with adapter.on(model):
        model.unet.conv_in.bias += 0.5
        moved = {**dense, "conv_in.bias": dense["conv_in.bias"] + 0.5}
        peer.load_state_dict(moved)
        assert max(map(differ, run(adapter, model, family), dense_run(peer, family))) <= 1e-5
        model.unet.conv_in.bias -= 0.5
        assert max(map(differ, run(adapter, model, family), expected)) <= 1e-5
    published = adapter.published()
    file = {key.removeprefix("control_model."): value for key, value in file.items()}
    assert published.keys() == {*file, "difference"}
    assert all(torch.equal(published[key], value) for key, value in file.items())


def inputs(family: str) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    source = torch.Generator().manual_seed(3)
    width = {"sd15": 16, "sdxl": 40}[family]
    x = torch.randn(2, 4, 16, 16, generator=source)
    text = torch.randn(2, 7, width, generator=source)
    pixels = torch.rand(2, 3, SIDES[family], SIDES[family], generator=source)
    pooled = torch.randn(2, 24, generator=source)
    ids = torch.rand(2, 6, generator=source) * 99
    return x, text, pixels, {"text_embeds": pooled, "time_ids": ids}


def dense_run(peer: ControlNetModel, family: str) -> tuple[Tensor, ...]:
    x, text, pixels, more = inputs(family)
    skips, mid = peer(
        x, torch.tensor(321), text, controlnet_cond=pixels, added_cond_kwargs=more,
        return_dict=False,
    )  # fmt: skip
    return (*skips, mid)


def run(adapter: Any, model: Any, family: str) -> tuple[Tensor, ...]:
    x, text, pixels, more = inputs(family)
    context = {
        "timestep": torch.tensor(321),
        "text": text,
        "pooled": more["text_embeds"],
        "time_ids": more["time_ids"],
        adapter.features_key: adapter.parts.encoder(pixels),
        adapter.scale_key: torch.tensor(1.0),
    }
    return adapter.parts.network(model.unet)(x, context=context)
