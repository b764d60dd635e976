"""InstantID from the Hub, held to a ControlNet and an IP-Adapter Plus of diffusers."""

from collections.abc import Iterator
from copy import deepcopy
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import refiners
import torch
from diffusers import ControlNetModel
from refiners.installed import inventory
from refiners.installed.distribution import distributions
from refiners.testing import LoopbackHub
from refiners_instantid.face_pack import ANTELOPE
from refiners_instantid.keypoint import draw, keypoint_pixels
from safetensors.torch import save

from refiners_core import Condition
from refiners_core.models.face import face_embeddings

FACE = torch.randn(512, generator=torch.Generator().manual_seed(5)) * 0.9
POINTS = [[14, 8], [30, 9], [22, 15], [15, 22], [29, 23]]
CONTROL = "ControlNetModel/diffusion_pytorch_model.safetensors"
HEIGHT, WIDTH, STEPS, GUIDANCE = 32, 48, 20, 5.0
SCALES = {"image_scale": 0.7, "control_scale": 0.9}


def resampler(width: int, out: int) -> dict[str, torch.Tensor]:
    """Random weights under the published names, in miniature."""
    shapes: dict[str, tuple[int, ...]] = {
        "latents": (1, 16, width),
        "proj_in.weight": (width, 512),
        "proj_in.bias": (width,),
        "proj_out.weight": (out, width),
        "proj_out.bias": (out,),
        "norm_out.weight": (out,),
        "norm_out.bias": (out,),
    }
    for i in range(4):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            shapes |= {f"layers.{i}.{norm}.{kind}": (width,) for kind in ("weight", "bias")}
        shapes |= {
            f"layers.{i}.0.to_q.weight": (width, width),
            f"layers.{i}.0.to_kv.weight": (2 * width, width),
            f"layers.{i}.0.to_out.weight": (width, width),
            f"layers.{i}.1.1.weight": (4 * width, width),
            f"layers.{i}.1.3.weight": (width, 4 * width),
        }
    return {
        name: torch.randn(shape) * (shape[-1] ** -0.5 if len(shape) > 1 else 0.5)
        for name, shape in shapes.items()
    }


def attentions(unet: Any) -> dict[str, torch.Tensor]:
    width, tensors = unet.config.cross_attention_dim, dict[str, torch.Tensor]()
    for n, name in enumerate(unet.attn_processors):
        if "attn2" in name:
            inner = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
            for kind in ("k", "v"):
                tensors[f"{n}.to_{kind}_ip.weight"] = torch.randn(inner, width) * 0.3
    return tensors


@pytest.fixture(scope="module")
def peer(sdxl_folder: tuple[Any, Path]) -> SimpleNamespace:
    """The pipeline with both parts, and the files that they are published as."""
    torch.manual_seed(4)
    pipe, _ = sdxl_folder
    control = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 16))
    with torch.no_grad():
        for name, weight in control.named_parameters():
            if "controlnet_" in name:
                weight.copy_(torch.randn(weight.shape) * 0.1)
    nested = {
        "image_proj": resampler(64, pipe.unet.config.cross_attention_dim),
        "ip_adapter": attentions(pipe.unet),
    }
    pickled = BytesIO()
    torch.save(nested, pickled)
    unet = deepcopy(pipe.unet)
    unet._load_ip_adapter_weights([nested])
    for processor in unet.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [SCALES["image_scale"]]
    files = {"ip-adapter.bin": pickled.getvalue(), CONTROL: save(control.state_dict())}
    return SimpleNamespace(pipe=pipe, unet=unet.eval(), control=control.eval(), files=files)


@pytest.fixture(scope="module")
def hub(peer: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    """A Hub with the repository; the installed manifest pins its miniature."""
    folder = tmp_path_factory.mktemp("instantid")
    with LoopbackHub() as hub, hub.in_use(folder / "hf"), pytest.MonkeyPatch.context() as patch:
        repo = hub.publish("InstantX/InstantID", peer.files)
        text = (files("refiners_instantid") / "adapter.toml").read_text()
        (spec,) = (entry.spec for entry in refiners.adapters() if entry.name == "instantid")
        for file in spec.weights.values():
            if file.source.startswith("pkg:"):
                continue
            text = text.replace(file.revision, repo.commit)
            text = text.replace(file.sha256, repo.sha256(file.file))
            text = text.replace(str(file.size), str(len(repo.files[file.file])))
        width = peer.unet.config.cross_attention_dim
        text = text.replace("cross_attention_dim = 2048", f"cross_attention_dim = {width}")
        (folder / "tiny_instantid").mkdir()
        (folder / "tiny_instantid/__init__.py").touch()
        (folder / "tiny_instantid/adapter.toml").write_text(text)
        info = folder / "refiners_instantid-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: refiners-instantid\nVersion: 1"
        )
        (info / "entry_points.txt").write_text(
            "[refiners.adapters]\ninstantid = tiny_instantid:adapter.toml\n"
        )
        patch.syspath_prepend(str(folder))
        patch.setattr(inventory, "distributions", lambda: distributions([str(folder)]))
        yield hub


@pytest.fixture(scope="module")
def model(sdxl_folder: tuple[Any, Path]) -> Any:
    return refiners.load_model(sdxl_folder[1])


@pytest.fixture
def adapter(hub: LoopbackHub, model: Any) -> Iterator[Any]:
    adapter = refiners.load_adapter("instantid", model, **SCALES)
    yield adapter
    adapter.eject()


def tokens(peer: SimpleNamespace, faces: torch.Tensor) -> torch.Tensor:
    (projection,) = peer.unet.encoder_hid_proj.image_projection_layers
    return projection(faces[:, None])


@torch.no_grad()
def test_tokens_of_a_face_equal_the_peers(peer, adapter, differ):
    faces = torch.randn(3, 512) * 20
    ours = adapter.parts.projection(faces[:, None])
    assert ours.shape == (3, 16, 40)
    assert differ(ours, tokens(peer, faces)) <= 1e-5


def predicted(peer: SimpleNamespace, latents: Any, t: Any, values: Any, pixels: Any, scale: float):
    """Returns the prediction of diffusers' parts; the ControlNet reads the face, the UNet both."""
    faces = values["faces"]
    added = {"text_embeds": values["pooled"], "time_ids": values["time_ids"]}
    skips, mid = peer.control(
        latents,
        t,
        encoder_hidden_states=tokens(peer, faces),
        controlnet_cond=pixels,
        conditioning_scale=scale,
        added_cond_kwargs=added,
        return_dict=False,
    )
    return peer.unet(
        latents,
        t,
        values["text"],
        added_cond_kwargs=added | {"image_embeds": [faces[:, None, None]]},
        down_block_additional_residuals=skips,
        mid_block_additional_residual=mid,
    ).sample


@torch.no_grad()
def test_a_prediction_equals_that_of_the_peers_parts(peer, model, adapter, differ):
    values = {
        "text": torch.randn(2, 7, 40),
        "pooled": torch.randn(2, 24),
        "time_ids": torch.randint(0, 99, (2, 6)).float(),
    }
    x, t, pixels = torch.randn(2, 4, 16, 24), torch.tensor(321), torch.rand(2, 3, 32, 48)
    faces = torch.randn(2, 512)
    theirs = predicted(peer, x, t, values | {"faces": faces}, pixels, SCALES["control_scale"])
    context = values | {
        "timestep": t,
        adapter.tokens_key: adapter.parts.projection(faces[:, None]),
        adapter.features_key: adapter.control.encoder(pixels),
        adapter.scale_key: torch.tensor(1.0),
        adapter.image_key: torch.full((2, 1, 1), SCALES["image_scale"]),
        adapter.control_key: torch.full((2, 1, 1, 1), SCALES["control_scale"]),
    }
    ours = model.unet(x, context=context)
    assert differ(ours, theirs) <= 1e-5
    for key in (adapter.image_key, adapter.control_key):  # each half has an effect
        fewer = {name: value for name, value in context.items() if name != key}
        if key == adapter.control_key:
            fewer.pop(adapter.features_key)
        assert differ(model.unet(x, context=fewer), theirs) > 1e-3


@torch.no_grad()
def test_a_whole_generation_equals_one_of_the_peers_parts(peer, model, adapter, differ):
    prompt, scale = "a red circle on blue", 0.5
    noise = torch.randn(1, 4, 16, 24, generator=torch.Generator().manual_seed(1))
    text, silent, pooled, silent_pooled = peer.pipe.encode_prompt(prompt)
    time_ids = torch.tensor([[HEIGHT, WIDTH, 0, 0, HEIGHT, WIDTH]] * 2).float()
    values = {
        "text": torch.cat([silent, text]),
        "pooled": torch.cat([silent_pooled, pooled]),
        "time_ids": time_ids,
        "faces": torch.stack([torch.zeros(512), FACE]),
    }
    pixels = draw(torch.tensor(POINTS).float(), (HEIGHT, WIDTH)).expand(2, -1, -1, -1)
    for processor in peer.unet.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [SCALES["image_scale"] * scale]
    schedule = peer.pipe.scheduler
    schedule.set_timesteps(STEPS)
    latents = noise * schedule.init_noise_sigma
    for t in schedule.timesteps:
        rows = schedule.scale_model_input(torch.cat([latents] * 2), t)
        control_scale = SCALES["control_scale"] * scale
        silent, heard = predicted(peer, rows, t, values, pixels, control_scale).chunk(2)
        latents = schedule.step(silent + GUIDANCE * (heard - silent), t, latents).prev_sample
    arguments = {"steps": STEPS, "guidance": GUIDANCE, "latents": noise}
    arguments |= {"output": "latents", "progress": False}
    value = Condition({"face": FACE, "keypoints": POINTS}, scale=scale)
    made = model.generate(prompt, conditions={adapter: value}, **arguments)
    assert differ(made, latents) <= 1e-4
    assert differ(noise, latents) > 0.1  # something happened


def test_the_pickle_is_opened_once_and_read_as_safetensors(hub, adapter, model):
    weights = adapter.source.files["weights"]
    assert weights.suffix == ".safetensors"
    adapter.eject()
    hub.requests.clear()
    weights_again = refiners.load_adapter("instantid", model, offline=True)
    assert weights_again.source.files["weights"] == weights
    assert hub.requests == []
    weights_again.eject()
    adapter.inject(model)


@pytest.mark.parametrize("name", ["", "ip-adapter.safetensors"])
def test_files_of_your_own_are_read(adapter, model, tmp_path, name, differ):
    conditions = {"face": FACE, "keypoints": POINTS}
    options = {"steps": 4, "seed": 1, "size": (WIDTH, HEIGHT), "output": "latents"}

    def made(worn: Any) -> torch.Tensor:
        return model.generate("two", conditions={worn: conditions}, progress=False, **options)

    expected = made(adapter)
    adapter.save(tmp_path / "mine")
    adapter.eject()
    mine = refiners.load_adapter(tmp_path / "mine" / name, model, **SCALES)
    assert mine.name == "instantid"
    assert differ(made(mine), expected) <= 1e-5
    mine.eject()
    adapter.inject(model)


def test_a_pickle_of_your_own_is_read_if_it_is_the_pinned_one(hub, peer, adapter, model, tmp_path):
    path = tmp_path / "ip-adapter.bin"
    path.write_bytes(peer.files["ip-adapter.bin"])
    adapter.eject()
    with refiners.load_adapter(path).on(model) as mine:
        known = adapter.published()
        assert all(torch.equal(known[key], value) for key, value in mine.published().items())
    path.write_bytes(peer.files["ip-adapter.bin"] + b"more")
    with pytest.raises(refiners.errors.RefinersError, match="is a pickle, which could run any"):
        refiners.load_adapter(path, model)
    adapter.inject(model)


def test_the_example_of_the_package_page_works(hub, model, monkeypatch, tmp_path):
    page = (Path(__file__).parents[2] / "plugins/instantid/README.md").read_text()
    program = page.partition("```py\n")[2].partition("```")[0]
    values: dict[Any, Any] = {}
    np.save(tmp_path / "face.npy", FACE.numpy())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(refiners, "load_model", {"sdxl": model}.get)
    monkeypatch.setattr(model, "generate", lambda _, conditions, **__: values.update(conditions))
    exec(compile(program, "README.md", "exec"), {})
    ((adapter, value),) = values.items()
    adapter.eject()
    assert keypoint_pixels(value["keypoints"], (1024, 1024), "id").any()
    assert torch.equal(face_embeddings(value["face"], "id", ANTELOPE), FACE[None])


def test_sd15_is_refused(hub, sd15_folder):
    model = refiners.load_model(sd15_folder[1])
    hub.requests.clear()
    with pytest.raises(refiners.IncompatibleError, match="needs sdxl, this sd15 model is sd15"):
        refiners.load_adapter("instantid", model)
    assert (model.adapters, hub.requests) == ((), [])
