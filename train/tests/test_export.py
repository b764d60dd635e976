"""Diffusers reads what was trained, and computes what the training computed."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, T2IAdapter
from refiners_ipadapter.adapter import IpAdapter
from refiners_lora.adapter import Lora
from refiners_train import Batch
from torch import Tensor

from refiners_core import Adapter, Source
from refiners_core.models.formats import to_diffusers
from refiners_core.testing import tiny_model
from refiners_core.weights import TensorFile, read, write

from .test_door import CASES, EYE, PICTURES, ROWS, Case, loss, objective

LATENTS = torch.randn(ROWS, 4, 8, 8, generator=torch.Generator().manual_seed(3))
TIMESTEPS = torch.tensor([3, 500, 900])
ALPHA = 10.0
"""A strength that is not the rank, so that a reader that forgets it differs."""
LORAS = {
    "attentions": lambda: Lora(rank=4, alpha=ALPHA),
    "convolutions": lambda: Lora(rank=4, alpha=ALPHA, where="unet.conv"),
    "text encoder": lambda: Lora(rank=4, alpha=ALPHA, where="text_encoder.linear"),
}


class Trained:
    """A model with an adapter that was trained for two steps and then moved in all weights."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        self.model = tiny_model()
        self.pipe: Any = to_diffusers(self.model)
        self.objective, learners = objective(case.make, self.model)
        self.adapter: Adapter = self.objective.reading.adapter
        self.batch = Batch([case.text] * ROWS, PICTURES, conditions=case.conditions)
        bare = self.output(worn=False)
        steps = torch.optim.SGD(learners.weights, 0.1)
        for seed in range(2):
            steps.zero_grad()
            loss(self.objective, self.batch, seed).backward()
            steps.step()
        with torch.no_grad():
            for weight in learners.weights:
                weight.add_(torch.randn(weight.shape) * 0.1)
        self.ours = self.output()
        assert differ(self.ours, bare) > 1e-3

    def saved(self, folder: Path) -> Path:
        """Writes the adapter as a training publishes it."""
        path = self.adapter.saved_path(folder, "trained")
        self.adapter.save(path)
        return path

    @torch.no_grad()
    def output(self, *, worn: bool = True) -> Tensor:
        drawn = self.objective.draw(self.batch, ROWS, torch.Generator().manual_seed(0))
        context = {**self.objective.context(self.batch, drawn), "branches": ("cond",)}
        if not worn:
            own = f"{self.adapter.key}."
            context = {key: value for key, value in context.items() if not key.startswith(own)}
        return self.model.unet(LATENTS, context={"timestep": TIMESTEPS, **context})

    @torch.no_grad()
    def theirs(self, **arguments: Any) -> Tensor:
        """Returns what diffusers' UNet predicts."""
        return self.pipe.unet(LATENTS, TIMESTEPS, self.text, return_dict=False, **arguments)[0]

    @property
    def text(self) -> Tensor:
        texts = [*self.batch.texts]
        return self.pipe.encode_prompt(texts, "cpu", 1, do_classifier_free_guidance=False)[0]


def differ(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def without_metadata(path: Path) -> Path:
    bare = path.with_name("bare.safetensors")
    write(read(path), bare)
    return bare


@pytest.mark.parametrize("has_metadata", [True, False])
@pytest.mark.parametrize("name", LORAS)
def test_diffusers_reads_a_lora(name, has_metadata, tmp_path):
    trained = Trained(Case(LORAS[name]))
    path = trained.saved(tmp_path)
    path = path if has_metadata else without_metadata(path)
    trained.pipe.load_lora_weights(path.parent, weight_name=path.name)
    layers = [
        layer
        for part in (trained.pipe.unet, trained.pipe.text_encoder)
        for layer in part.modules()
        if getattr(layer, "lora_A", None)
    ]
    assert len(layers) == len(read(path)) / 2
    assert differ(trained.ours, trained.theirs()) <= 1e-4


@pytest.mark.parametrize("has_metadata", [True, False])
def test_diffusers_reads_loras_of_several_ranks(has_metadata, tmp_path):
    trained = Trained(Case(lambda: Lora(rank=4, alpha=ALPHA)))
    other = tiny_model()
    wide = Lora(rank=16, alpha=8.0, where="unet.linear").inject(other)
    with torch.no_grad():
        for weight in wide.parameters():
            weight.copy_(torch.randn(weight.shape) * 0.05)
    narrow = read(trained.saved(tmp_path))
    wide.save(tmp_path / "wide.safetensors")
    mixed = {**read(tmp_path / "wide.safetensors"), **narrow}
    assert {len(value) for key, value in mixed.items() if "lora_A" in key} == {4, 16}
    write(mixed, tmp_path / "mixed.safetensors")
    trained.adapter.eject()
    both = Lora(weights=lambda _: Source({"weights": tmp_path / "mixed.safetensors"}))
    both.inject(trained.model)
    trained.adapter = both
    trained.objective.reading.adapter = both  # type: ignore[misc]
    path = trained.saved(tmp_path)
    path = path if has_metadata else without_metadata(path)
    ours = trained.output()
    trained.pipe.load_lora_weights(path.parent, weight_name=path.name)
    assert differ(ours, trained.theirs()) <= 1e-4


def test_the_file_has_one_style_of_names_with_the_part_first(tmp_path):
    path = Trained(Case(LORAS["attentions"])).saved(tmp_path)
    assert all(re.fullmatch(r"unet\.[\w.]+\.lora_[AB]\.weight", key) for key in read(path))
    with TensorFile(path) as file:
        assert "lora_adapter_metadata" in file.metadata()


def test_diffusers_reads_a_controlnet(tmp_path):
    trained = Trained(CASES["controlnet"])
    path = trained.saved(tmp_path)
    sizes = {"conditioning_embedding_out_channels": (4, 8, 8)}
    unet = trained.pipe.unet
    unet.register_to_config(layers_per_block=unet.config.layers_per_block[0])  # one for all
    peer = ControlNetModel.from_unet(unet, load_weights_from_unet=False, **sizes)
    peer.save_config(tmp_path / "folder")
    write(read(path), tmp_path / "folder/diffusion_pytorch_model.safetensors")
    peer, info = ControlNetModel.from_pretrained(tmp_path / "folder", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys"))
    with torch.no_grad():
        down, middle = peer(LATENTS, TIMESTEPS, trained.text, PICTURES, return_dict=False)
    theirs = trained.theirs(
        down_block_additional_residuals=down, mid_block_additional_residual=middle
    )
    assert differ(trained.ours, theirs) <= 1e-4


def test_diffusers_reads_a_t2i_adapter(tmp_path):
    trained = Trained(CASES["t2i"])
    tensors = read(trained.saved(tmp_path))
    config = trained.adapter.config  # type: ignore[attr-defined]
    peer = T2IAdapter(
        in_channels=config.picture_channels,
        channels=[*config.widths],
        num_res_blocks=config.residuals,
        downscale_factor=config.block,
    )
    peer.load_state_dict(tensors)
    with torch.no_grad():
        maps = peer(PICTURES)
    assert differ(trained.ours, trained.theirs(down_intrablock_additional_residuals=maps)) <= 1e-4


def test_diffusers_reads_an_ip_adapter(tmp_path):
    trained = Trained(CASES["ip-adapter"])
    path = trained.saved(tmp_path)
    adapter = trained.adapter
    assert isinstance(adapter, IpAdapter)
    trained.pipe.load_ip_adapter(path.parent, "", path.name, image_encoder_folder=None)
    with torch.no_grad():
        request = trained.objective.reading.request(trained.batch, trained.batch.texts)
        (embeds,) = adapter.features([*PICTURES], request)
    assert embeds.shape == (ROWS, EYE.projection_width)
    theirs = trained.theirs(added_cond_kwargs={"image_embeds": [embeds[:, None]]})
    assert differ(trained.ours, theirs) <= 1e-4


def test_diffusers_reads_a_textual_inversion(tmp_path):
    trained = Trained(CASES["textual inversion"])
    path = trained.saved(tmp_path)
    trained.pipe.load_textual_inversion(path, token="<it>")
    assert differ(trained.ours, trained.theirs()) <= 1e-4
