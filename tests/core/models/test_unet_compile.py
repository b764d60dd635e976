"""The UNets of both families compile to one graph, bare and worn, and export."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from refiners_core import Adapter, Lambda, Sum
from refiners_core.models import sd15, sdxl
from refiners_core.models.clip import ClipTextConfig
from refiners_core.models.unet import UNetConfig
from refiners_core.models.vae import AutoencoderConfig

TINY: dict[str, Any] = {"channels": (8, 16), "layers": (1, 1), "heads": (2, 2), "groups": 4}
AUTOENCODER = AutoencoderConfig(channels=(8, 8), blocks=1, groups=4)
TEXT: dict[str, Any] = {"vocabulary": 9, "inner_width": 8, "layers": 2, "heads": 2}


def build_sd15():
    unet = UNetConfig(**TINY, depths=(1, 0), text_width=8)
    text = ClipTextConfig(**TEXT, width=8)
    return sd15.build(unet=unet, text_encoder=text, autoencoder=AUTOENCODER), {}


def build_sdxl():
    unet = UNetConfig(
        **TINY,
        depths=(0, 1),
        text_width=12,
        has_linear_projection=True,
        added_cond_width=5 + 6 * 4,
        time_id_channels=4,
    )
    first, second = ClipTextConfig(**TEXT, width=8), ClipTextConfig(**TEXT, width=4)
    model = sdxl.build(
        unet=unet,
        text_encoder=first,
        text_encoder_2=replace(second, projection_width=5),
        autoencoder=AUTOENCODER,
    )
    return model, {"pooled": torch.randn(2, 5), "time_ids": torch.full((2, 6), 64.0)}


@pytest.fixture(
    params=[build_sd15, pytest.param(build_sdxl, marks=pytest.mark.slow)], ids=["sd15", "sdxl"]
)
def call(request):
    """A model around a tiny UNet, and what the UNet is called with."""
    torch.manual_seed(0)
    torch.compiler.reset()
    model, values = request.param()
    model.unet.eval().requires_grad_(False)
    text = torch.randn(2, 3, model.facts["cross_attention_dim"])
    return model, torch.randn(2, 4, 8, 8), {"timestep": torch.tensor(7), "text": text} | values


def take_half(q, k, v):
    return q * 0.5


class Halves(Adapter):
    """Adds to each cross-attention half of what it saw."""

    takes_condition = False

    def edits(self, model):
        slot = model.slot("unet.cross_attention.attend")
        return slot.wrap(lambda inner, seat: Sum(inner, Lambda(take_half)), stage="branch")


@pytest.mark.slow
def test_a_unet_compiles_to_one_graph_bare_and_worn(call):
    model, latents, values = call
    compiled = torch.compile(model.unet, backend="eager", fullgraph=True)
    bare = model.unet(latents, context=values)
    torch.testing.assert_close(compiled(latents, context=values), bare)
    with Halves().on(model):
        worn = model.unet(latents, context=values)
        assert not torch.allclose(worn, bare)
        torch.testing.assert_close(compiled(latents, context=values), worn)
    torch.testing.assert_close(compiled(latents, context=values), bare)


@pytest.mark.slow
def test_a_unet_compiles_to_machine_code(call):
    model, latents, values = call
    compiled = torch.compile(model.unet, fullgraph=True)
    expected = model.unet(latents, context=values)
    torch.testing.assert_close(compiled(latents, context=values), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("is_strict", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_unet_is_exported_with_its_context(call, is_strict):
    model, latents, values = call
    given = {"context": values}
    program = torch.export.export(model.unet, (latents,), kwargs=given, strict=is_strict)
    expected = model.unet(latents, context=values)
    assert torch.equal(program.module()(latents, context=values), expected)
