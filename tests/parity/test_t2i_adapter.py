"""T2I-Adapters from the Hub compute what diffusers' T2IAdapter and its pipelines compute."""

import hashlib
import io
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, NamedTuple

import pytest
import refiners
import torch
from diffusers import (
    StableDiffusionAdapterPipeline,
    StableDiffusionXLAdapterPipeline,
    T2IAdapter,
)
from refiners.installed import inventory
from refiners.installed.distribution import distributions
from refiners.testing import LoopbackHub
from safetensors.torch import save
from torch import Tensor

from refiners_core import Condition
from refiners_core.models.formats.open import open_folder

PROMPTS = ["a red circle on blue", "two cats"]
SD15 = {"channels": [16, 32, 32, 32], "num_res_blocks": 2, "downscale_factor": 4}
LIGHT = {"channels": [16, 32, 32], "num_res_blocks": 4, "downscale_factor": 4}


def authors(tensors: dict[str, Tensor], each: int) -> dict[str, Tensor]:
    """Names tensors as the authors' own code does."""

    def renamed(key: str) -> str:
        key = key.removeprefix("adapter.")
        if each == 0:  # light
            return key.replace(".resnets.", ".body.")
        key = re.sub(
            r"body\.(\d+)\.resnets\.(\d+)",
            lambda m: f"body.{int(m[1]) * each + int(m[2])}",
            key,
        )
        return re.sub(r"body\.(\d+)\.in_conv", lambda m: f"body.{int(m[1]) * each}.in_conv", key)

    return {renamed(key): value for key, value in tensors.items()}


class Row(NamedTuple):
    """An adapter of the manifest, and the network that it is in miniature."""

    name: str
    family: str
    repository: str
    file: str
    sizes: dict[str, Any]
    each: int | None = None
    """Residual blocks of a level in the authors' names; None for diffusers' names."""


MODULES = "webui/ControlNet-modules-safetensors"
FILE = "diffusion_pytorch_model.safetensors"
XL = SD15 | {"adapter_type": "full_adapter_xl"}
ROWS = [
    Row("t2i-depth", "sd15", "TencentARC/t2iadapter_depth_sd15v2", FILE[:23] + ".bin", SD15),
    Row(
        "t2i-sketch",
        "sd15",
        MODULES,
        "t2iadapter_sketch-fp16.safetensors",
        SD15 | {"in_channels": 1},
        2,
    ),
    Row(
        "t2i-color",
        "sd15",
        MODULES,
        "t2iadapter_color-fp16.safetensors",
        LIGHT | {"adapter_type": "light_adapter"},
        0,
    ),
    Row("t2i-canny", "sdxl", "TencentARC/t2i-adapter-canny-sdxl-1.0", FILE, XL),
    Row("t2i-openpose", "sdxl", "TencentARC/t2i-adapter-openpose-sdxl-1.0", FILE, XL),
]


def network(row: Row) -> T2IAdapter:
    torch.manual_seed(5)
    peer = T2IAdapter(**row.sizes).eval()
    for weight in peer.parameters():
        weight.data = torch.randn(weight.shape) * (
            0.2 if weight.ndim == 1 else 1.4 / weight[0].numel() ** 0.5
        )
    return peer


def as_published(row: Row, peer: T2IAdapter) -> bytes:
    tensors = dict(peer.state_dict())
    if row.each is not None:
        tensors = authors(tensors, row.each)
    if row.file.endswith(".bin"):
        buffer = io.BytesIO()
        torch.save(tensors, buffer)
        return buffer.getvalue()
    return save(tensors)


@pytest.fixture(scope="module")
def peers() -> dict[str, T2IAdapter]:
    return {row.name: network(row) for row in ROWS}


@pytest.fixture(scope="module")
def hub(peers: dict[str, T2IAdapter], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The manifest as it is, pins and facts apart, and a Hub that has its files in miniature."""
    folder = tmp_path_factory.mktemp("site")
    manifest = (files("refiners_t2iadapter") / "adapter.toml").read_text()
    served: dict[str, dict[str, bytes]] = {}
    for row in ROWS:
        served.setdefault(row.repository, {})[row.file] = as_published(row, peers[row.name])
    with LoopbackHub() as on_this_machine, on_this_machine.in_use(folder / "hf"):
        for name, content in served.items():
            repository = on_this_machine.publish(name, content)
            for file, data in content.items():
                place = f'source = "hf:{name}"\nrevision = ".*"\nfile = "{file}"\nsha256 = ".*"\n'
                pinned = re.sub(r'revision = ".*"', f'revision = "{repository.commit}"', place)
                pinned = pinned.replace(
                    'sha256 = ".*"', f'sha256 = "{hashlib.sha256(data).hexdigest()}"'
                )
                manifest, count = re.subn(place, pinned, manifest)
                assert count == 1, f"the manifest names {name}/{file}"
        manifest = manifest.replace("_dim = 768", "_dim = 16").replace("_dim = 2048", "_dim = 40")
        package = folder / "refiners_tiny"
        package.mkdir()
        (package / "adapter.toml").write_text(manifest)
        (package / "__init__.py").write_text("")
        info = folder / "refiners_tiny-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: refiners-tiny\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            "[refiners.adapters]\nx = refiners_tiny:adapter.toml\n"
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(folder))
            patch.setattr(inventory, "distributions", lambda: distributions([str(folder)]))
            yield


@pytest.fixture(params=ROWS, ids=lambda row: f"{row.name}-{row.family}")
def row(request: pytest.FixtureRequest) -> Row:
    return request.param


@pytest.fixture(scope="module")
def models(sd15_folder: Any, sdxl_folder: Any) -> dict[str, tuple[Any, Any]]:
    """Theirs and ours, by family."""
    both = {"sd15": sd15_folder, "sdxl": sdxl_folder}
    return {name: (pipe, open_folder(folder)) for name, (pipe, folder) in both.items()}


def picture(row: Row, count: int) -> Tensor:
    side = 64 if row.family == "sd15" else 32
    pixels = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(2))
    return pixels[:, :1] if row.sizes.get("in_channels") == 1 else pixels


def seen_by_peer(row: Row, pixels: Tensor) -> Tensor:
    """The manifest declares that SDXL's OpenPose was trained with red and blue swapped."""
    return pixels.flip(1) if row.name == "t2i-openpose" else pixels


@torch.no_grad()
def test_a_network_equals_the_peers(
    row: Row, hub: None, peers: dict[str, T2IAdapter], models: Any, differ: Any
) -> None:
    pipe, model = models[row.family]
    peer, pixels, t = peers[row.name], picture(row, 2), torch.tensor(321)
    x = torch.randn(2, 4, 16, 16)
    text = torch.randn(2, 7, pipe.unet.config.cross_attention_dim)
    more = {"text_embeds": torch.randn(2, 24), "time_ids": torch.rand(2, 6) * 99}
    maps = peer(seen_by_peer(row, pixels))
    theirs = pipe.unet(
        x,
        t,
        text,
        added_cond_kwargs=more,
        down_intrablock_additional_residuals=[0.7 * features for features in maps],
    ).sample
    plain = pipe.unet(x, t, text, added_cond_kwargs=more).sample
    with refiners.load_adapter(row.name).on(model) as adapter:
        side = pixels.shape[-1]
        encoded = adapter.encode(pixels, request_of(model, side))
        ours = {key: branches["cond"] for key, branches in encoded.items()}
        for mine, yours in zip(ours.values(), maps, strict=True):
            assert differ(mine, yours) <= 1e-5
        context = {"timestep": t, "text": text, "pooled": more["text_embeds"]}
        context |= {"time_ids": more["time_ids"], adapter.scale_key: torch.tensor(0.7)}
        made = model.unet(x, context=context | ours)
    assert differ(made, theirs) <= 1e-5
    assert differ(plain, theirs) > 1e-3


def request_of(model: Any, side: int) -> Any:
    from refiners_core.models.diffusion import GenerationRequest

    return GenerationRequest(
        model=model,
        count=2,
        branches=("cond",),
        height=side,
        width=side,
        latent_height=16,
        latent_width=16,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


def test_a_whole_generation_equals_that_of_diffusers(
    row: Row, hub: None, peers: dict[str, T2IAdapter], models: Any, differ: Any
) -> None:
    pipe, model = models[row.family]
    pixels = picture(row, 2)
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    arguments = {"num_inference_steps": 20, "guidance_scale": 5.0, "latents": noise}
    arguments |= {"image": seen_by_peer(row, pixels), "output_type": "latent"}
    arguments |= {"adapter_conditioning_scale": 0.8, "negative_prompt": ["dull", "x"]}
    parts = {"adapter": peers[row.name], **pipe.components}
    condition = Condition(pixels, scale=0.8)
    if row.family == "sdxl":
        theirs = StableDiffusionXLAdapterPipeline(**parts)
        arguments["adapter_conditioning_factor"] = 0.6
        condition = Condition(pixels, scale=0.8, end=0.6)
    else:
        del parts["image_encoder"]
        theirs = StableDiffusionAdapterPipeline(**parts, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(PROMPTS, **arguments).images
    with refiners.load_adapter(row.name).on(model) as adapter:
        made = model.generate(
            PROMPTS,
            negative_prompt=["dull", "x"],
            conditions={adapter: condition},
            steps=20,
            guidance=5.0,
            latents=noise,
            output="latents",
            progress=False,
        )
    assert differ(made, expected) <= 1e-4


def test_several_at_once_equal_a_multi_adapter(
    hub: None, peers: dict[str, T2IAdapter], models: Any, differ: Any
) -> None:
    pipe, model = models["sd15"]
    rows = [row for row in ROWS if row.name in ("t2i-depth", "t2i-sketch")]
    pictures = [picture(row, 1) for row in rows]
    parts = {"adapter": [peers[row.name] for row in rows], **pipe.components}
    del parts["image_encoder"]
    theirs = StableDiffusionAdapterPipeline(**parts, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    expected = theirs(
        PROMPTS[0],
        image=pictures,
        adapter_conditioning_scale=[0.8, 0.3],
        num_inference_steps=4,
        guidance_scale=5.0,
        latents=noise,
        output_type="latent",
    ).images
    worn = [refiners.load_adapter(row.name, model) for row in rows]
    conditions = {
        adapter: Condition(pixels, scale=scale)
        for adapter, pixels, scale in zip(worn, pictures, (0.8, 0.3), strict=True)
    }
    arguments: dict[str, Any] = {"steps": 4, "guidance": 5.0, "latents": noise}
    made = model.generate(
        PROMPTS[0], conditions=conditions, output="latents", progress=False, **arguments
    )
    model.eject_all()
    assert differ(made, expected) <= 1e-4
