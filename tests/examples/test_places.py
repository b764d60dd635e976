"""Adapters at blocks, norms and in the autoencoder compute what plain functions of the base do."""

import copy
from typing import Any

import brushnet
import controlnext
import layer_diffuse
import motion
import pytest
import torch
from refiners_iclight.adapter import ForegroundLight
from torch import Tensor, nn

from refiners_core.testing import tiny_model
from refiners_core.testing.case import bits

from .test_contract import PICTURE
from .test_meaning import close, rows, unet_context

AROUND = torch.rand(2, 5, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def bare() -> Any:
    return tiny_model()


@pytest.fixture
def model(bare: Any):
    torch.manual_seed(0)
    yield bare
    bare.eject_all()


def added(layer: nn.Module, term: Any, handles: list[Any]) -> None:
    """Adds a term to the output of a layer, by a hook of torch."""
    handles.append(layer.register_forward_hook(lambda _layer, _inputs, output: output + term))


@torch.no_grad()
def test_controlnext_adds_before_the_first_level(model):
    adapter = controlnext.ControlNext(key="control").inject(model)
    features = torch.randn(2, 8, 8, 8)
    context = unet_context(adapter, 0.6, features=features)
    output = model.unet(rows(model), context=context)
    adapter.eject()
    hook = model.unet.down[0].register_forward_pre_hook(
        lambda _, inputs: (inputs[0] + controlnext.like(features, inputs[0]) * 0.6,)
    )
    assert bits(output) == bits(model.unet(rows(model), context=unet_context()))
    hook.remove()
    normalised = controlnext.like(features, rows(model))
    assert torch.allclose(normalised.mean((1, 2, 3)), rows(model).mean((1, 2, 3)), atol=1e-4)


@torch.no_grad()
def test_brushnet_adds_to_every_level(model):
    adapter = brushnet.BrushNet(key="brush").inject(model)
    context = unet_context(adapter, 0.6, around=AROUND)
    output = model.unet(rows(model), context=context)
    adapter.eject()
    levels = adapter.network(rows(model), context=context)
    unet, handles = model.unet, list[Any]()
    for layer, level in zip((unet.conv_in, *unet.down, unet.mid, *unet.up), levels, strict=True):
        added(layer, level * 0.6, handles)
    assert bits(output) == bits(unet(rows(model), context=unet_context()))
    for handle in handles:
        handle.remove()


@torch.no_grad()
def test_iclight_moves_the_weights_of_every_layer(model):
    adapter = ForegroundLight(key="light").inject(model)
    for weight in adapter.parameters():
        weight.normal_(std=0.1)
    light = torch.randn(2, 4, 8, 8)
    output = model.unet(rows(model), context=unet_context(adapter, 0.5, light=light))
    adapter.eject()
    twin = copy.deepcopy(model)
    names = [seat.path for edit in adapter.edits(model) for seat in edit.seats]
    kinds = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm)
    layers = [path for path, layer in model.unet.walk() if isinstance(layer, kinds)]
    assert sorted(names) == sorted(f"unet.{path}" for path in layers)
    for path in layers:
        if path != "conv_in":
            for kind, change in adapter.offsets.layer(path).named_parameters():
                twin.unet.layer(path).get_parameter(kind).add_(0.5 * change)
    wider: Any = adapter.offsets.conv_in
    handles: list[Any] = []
    added(twin.unet.conv_in, 0.5 * wider(torch.cat([rows(model), light], dim=1)), handles)
    assert close(output, twin.unet(rows(model), context=unet_context()))


def test_motion_follows_each_layer_of_the_levels(model):
    adapter = motion.Motion(key="motion").inject(model)
    edited = [seat.path for edit in adapter.edits(model) for seat in edit.seats]
    levels = [*model.slot("unet.down"), *model.slot("unet.up")]
    expected = [
        f"{level.path}.transformer_{i}"
        for level in levels
        for i in range(len([name for name, _ in level.layer.children_by_name() if name in (
            "resnet_0", "resnet_1")]))
    ]  # fmt: skip
    assert sorted(edited) == sorted(expected)


def test_motion_follows_residual_blocks_where_a_level_has_no_attention():
    from refiners_core.testing import tiny_sdxl

    model = tiny_sdxl()
    adapter = motion.Motion(key="motion").inject(model)
    edited = {seat.path for edit in adapter.edits(model) for seat in edit.seats}
    assert {"unet.down.0.resnet_0", "unet.down.1.transformer_0", "unet.up.2.resnet_1"} <= edited
    assert "unet.down.1.resnet_0" not in edited


@torch.no_grad()
def test_layerdiffuse_moves_latents_and_adds_a_channel(model):
    adapter = layer_diffuse.LayerDiffuse(key="layer").inject(model)
    offset = torch.randn(1, 4, 8, 8)
    context = {adapter.scale_key: torch.tensor(0.5), adapter.context_key("offset"): offset}
    latents = model.encode(PICTURE, context)
    pixels = model.autoencoder.decode(latents, context)
    head = adapter.own_layers["autoencoder/decoder"]
    adapter.eject()
    factor = model.autoencoder.config.scaling_factor
    assert close(latents, model.encode(PICTURE) + 0.5 * offset * factor)
    plain = model.autoencoder.decode(latents)
    large = nn.functional.interpolate(latents / factor, plain.shape[-2:])
    alpha = 0.5 * head(torch.cat([plain, large], dim=1))
    assert bits(pixels) == bits(torch.cat([plain, alpha], dim=1))


# --- every slot ------------------------------------------------------------------------------

BLOCKS = {
    "unet.norm": lambda unet: [
        part for part in unet.modules() if isinstance(part, nn.GroupNorm | nn.LayerNorm)
    ],
    "unet.down": lambda unet: [*unet.down],
    "unet.mid": lambda unet: [unet.mid],
    "unet.up": lambda unet: [*unet.up],
    "unet.up.output": lambda unet: [level.output for level in unet.up],
    "unet.up.upsample": lambda unet: [level.upsample for level in list(unet.up)[:-1]],
    "unet.residual": lambda unet: named(unet, "ResidualBlock"),
    "unet.transformer": lambda unet: named(unet, "SpatialTransformer"),
    "unet.feed_forward": lambda unet: named(unet, "GatedFeedForward"),
    "unet.conv_out": lambda unet: [unet.conv_out],
    "unet.up.1": lambda unet: [unet.up[1]],
    "unet.residual.2": lambda unet: [named(unet, "ResidualBlock")[2]],
}  # fmt: skip


def named(unet: nn.Module, kind: str) -> list[nn.Module]:
    return [part for part in unet.modules() if type(part).__name__ == kind]


@torch.no_grad()
@pytest.mark.parametrize("slot", BLOCKS)
def test_a_branch_at_a_slot_adds_to_its_layers(model, slot):
    from refiners_core import Adapter, Lambda, Sum

    class Beside(Adapter):
        def edits(self, model: Any) -> Any:
            return model.slot(slot).wrap(lambda inner, seat: Sum(inner, Lambda(constant)))

    with Beside(key="beside").on(model):
        output = model.unet(rows(model), context=unet_context())
    handles: list[Any] = []
    for layer in BLOCKS[slot](model.unet):
        added(layer, 0.25, handles)
    assert handles
    assert bits(output) == bits(model.unet(rows(model), context=unet_context()))
    for handle in handles:
        handle.remove()


def constant(x: Tensor) -> Tensor:
    return torch.full((), 0.25)
