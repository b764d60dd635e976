"""Every kind of image prompt, loaded from a Hub by name, against the pipelines of diffusers."""

from types import SimpleNamespace
from typing import Any

import pytest
import refiners
import torch

from refiners_core import Condition
from refiners_core.models.clip import clip_pixels
from refiners_core.models.dino import dino_pixels

from .ip_adapter_peer import (
    DINO,
    DINO_NAME,
    HIDDEN,
    PROJECTIONS,
    attentions,
    dino,
    drawn,
    plus,
    published,
    saved,
    serving,
    vision,
)
from .ip_adapter_stage import FACES, LEFT, PICTURES, UNNORMED, Peer, ours, value, worn

NAMES = {
    "sd15": [name for name in PROJECTIONS if name != UNNORMED],
    "sdxl": ["ip-adapter", "ip-adapter-plus", "ip-adapter-faceid-plusv2", UNNORMED],
}


@pytest.fixture(scope="module")
def stages(sd15_folder, sdxl_folder, tmp_path_factory):
    """For each base a pipeline, our model of it, and its adapters, which one Hub serves."""
    encoder, folders = vision(), {"sd15": sd15_folder, "sdxl": sdxl_folder}
    bases = {
        base: (folders[base][0].unet, published(folders[base][0].unet, names))
        for base, names in NAMES.items()
    }
    with serving(tmp_path_factory.mktemp("ip-adapter"), bases, encoder):
        made = {
            base: SimpleNamespace(
                base=base,
                pipe=pipe,
                weights=bases[base][1],
                encoder=encoder,
                model=refiners.load_model(path),
            )
            for base, (pipe, path) in folders.items()
        }
        for stage in made.values():
            stage.bare = ours(stage, {})
        yield made


@pytest.fixture
def stage(request: pytest.FixtureRequest, stages: dict[str, SimpleNamespace]) -> SimpleNamespace:
    return stages[request.param]


CASES = [
    pytest.param(
        base,
        name,
        id=f"{base}-{name}",
        marks=pytest.mark.slow if base == "sdxl" and "faceid" in name else (),
    )
    for base, names in NAMES.items()
    for name in names
]


@pytest.mark.parametrize(("stage", "name"), CASES, indirect=["stage"])
def test_a_generation_equals_that_of_diffusers(stage, name, differ):
    peer = Peer(stage, name)
    peer.pipe.set_ip_adapter_scale(0.7)
    numbers = (0, 1) if name in ("ip-adapter-plus", "ip-adapter-faceid-portrait-v11") else (0,)
    expected = peer.latents(numbers)
    with worn(stage, name) as (adapter,):
        made = ours(stage, {adapter: Condition(value(name, numbers), scale=0.7)})
        (layer,) = peer.layers
        features = peer.features(name, PICTURES[:1], FACES[:1])
        check_tokens(adapter, name, layer, features, differ)
    assert differ(made, expected) <= 1e-4
    assert differ(stage.bare, expected) > 1e-2


@torch.no_grad()
def check_tokens(adapter: Any, name: str, layer: Any, features: Any, differ: Any) -> None:
    """Holds the tokens of one picture or face to those of the peer's projection."""
    first, patches = features
    if "faceid-plus" in name:
        layer.clip_embeds = patches
        theirs, parts = layer(first[0]), (first[0], patches[0])
    elif name == UNNORMED:
        theirs, parts = layer(first[0][:, None]), (first[0],)
    else:
        theirs, parts = layer(first[0]), (first[0],)
    assert differ(adapter.projected(parts), theirs) <= 1e-5


@pytest.mark.parametrize("stage", ["sd15"], indirect=True)
@pytest.mark.parametrize("name", ["ip-adapter-plus"])
def test_negative_pictures_equal_those_of_diffusers(stage, name, differ):
    expected = Peer(stage, name).latents((0,), negative=(2,))
    with worn(stage, name) as (adapter,):
        made = ours(stage, {adapter: value(name, (0,), negative=(2,))})
    assert differ(made, expected) <= 1e-4
    assert differ(stage.bare, expected) > 1e-2


@pytest.mark.parametrize("stage", ["sd15", "sdxl"], indirect=True)
def test_a_mask_for_each_picture_equals_those_of_diffusers(stage, differ):
    masks = torch.cat([LEFT, 1 - LEFT], dim=1)
    peer = Peer(stage, "ip-adapter-plus")
    arguments = {"cross_attention_kwargs": {"ip_adapter_masks": [masks]}}
    expected = peer.latents((0, 1), **arguments)
    with worn(stage, "ip-adapter-plus") as (adapter,):
        shown = value("ip-adapter-plus", (0, 1))
        made = ours(stage, {adapter: {**shown, "masks": [LEFT, 1 - LEFT]}})
    assert differ(made, expected) <= 1e-4
    assert differ(stage.bare, expected) > 1e-2


@pytest.mark.parametrize("stage", ["sdxl"], indirect=True)
def test_several_adapters_with_masks_equal_those_of_diffusers(stage, differ):
    names = ("ip-adapter", "ip-adapter-plus")
    peer = Peer(stage, *names)
    peer.pipe.set_ip_adapter_scale([0.6, 0.9])
    masks = [LEFT, torch.cat([1 - LEFT, LEFT], dim=1)]
    arguments = {"cross_attention_kwargs": {"ip_adapter_masks": masks}}
    expected = peer.latents((0,), (1, 2), **arguments)
    with worn(stage, *names) as (first, second):
        shown = {**value("ip-adapter-plus", (1, 2)), "masks": [1 - LEFT, LEFT]}
        conditions = {
            first: Condition(PICTURES[0], scale=0.6, mask=LEFT),
            second: Condition(shown, scale=0.9),
        }
        made = ours(stage, conditions)
    assert differ(made, expected) <= 1e-4


BLOCKS = {
    "sd15": {
        "style": {"up": {"block_1": [0.0, 0.8, 0.0]}},
        "layout": {"down": {"block_2": [0, 1.0]}},
    },
    "sdxl": {
        "style": {"up": {"block_0": [0.0, 0.8, 0.0]}},
        "layout": {"down": {"block_2": [0, 1.0]}},
    },
}
"""The scales of InstantStyle in diffusers; those of SDXL are from its documentation."""


@pytest.mark.parametrize("stage", ["sd15", "sdxl"], indirect=True)
@pytest.mark.parametrize("places", [("style",), ("style", "layout")])
def test_scales_by_the_places_of_instant_style_equal_those_of_diffusers(stage, places, differ):
    peer = Peer(stage, "ip-adapter")
    blocks = BLOCKS[stage.base]
    scale = {way: part for place in places for way, part in blocks[place].items()}
    peer.pipe.set_ip_adapter_scale(scale)
    expected = peer.latents((0,))
    with worn(stage, "ip-adapter") as (adapter,):
        strengths = {"style": 0.8, "layout": 1.0}
        by_place = {place: strengths[place] for place in places}
        made = ours(stage, {adapter: Condition(PICTURES[0], scale=by_place)})
    assert differ(made, expected) <= 1e-4
    assert differ(stage.bare, expected) > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("stage", ["sd15"], indirect=True)
def test_patches_of_dinov2_equal_those_of_its_peers(stage, differ, tmp_path):
    torch.manual_seed(6)
    unet, encoder = stage.pipe.unet, dino()
    encoder.save_pretrained(tmp_path / "image_encoder")
    weights = {
        "image_proj": drawn(plus(unet.config.cross_attention_dim, DINO["width"])),
        "ip_adapter": attentions(unet),
    }
    (tmp_path / "mine.safetensors").write_bytes(saved(weights, ""))
    stage.weights[DINO_NAME] = weights
    peer = Peer(stage, DINO_NAME)
    pixels = dino_pixels(PICTURES[:1], 42)
    shown, blank = (encoder(x).last_hidden_state[:, 1:] for x in (pixels, torch.zeros_like(pixels)))
    expected = peer.generated([torch.cat([blank, shown])[:, None]])
    with worn(stage) as _:
        adapter = refiners.load_adapter(DINO_NAME, stage.model, file=tmp_path / "mine.safetensors")
        assert differ(adapter.projected((shown,)), peer.layers[0](shown)) <= 1e-5
        assert differ(ours(stage, {adapter: PICTURES[0]}), expected) <= 1e-4


OWN = {
    "ip-adapter-plus": "photo.safetensors",
    "ip-adapter-full-face": "face.safetensors",
    "ip-adapter-faceid": "me.safetensors",
    "ip-adapter-faceid-plusv2": "ip-adapter-faceid-plusv2_me.safetensors",
}
"""Files of a user that are recognised by their tensors, one of them by its name too."""


@pytest.mark.parametrize("stage", ["sd15"], indirect=True)
@pytest.mark.parametrize("name", OWN)
def test_a_file_of_the_user_has_the_tokens_of_the_named_one(stage, name, tmp_path):
    stage.encoder.save_pretrained(tmp_path / "image_encoder")
    path = tmp_path / OWN[name]
    path.write_bytes(saved(stage.weights[name], ""))
    with worn(stage, name) as (named,):
        loaded = refiners.load_adapter(path, stage.model)
        for (key, ours), (_, theirs) in zip(
            loaded.state_dict().items(), named.state_dict().items(), strict=True
        ):
            assert torch.equal(ours, theirs), key
        assert loaded.has_shortcut(loaded.source) == named.has_shortcut(named.source)


@torch.no_grad()
@pytest.mark.parametrize("stage", ["sd15"], indirect=True)
def test_each_kind_shows_its_own_nothing_to_the_negative_branch(stage, differ):
    zeros = torch.zeros(1, 3, 32, 32)
    blank = stage.encoder(zeros, output_hidden_states=True).hidden_states[-2]
    black = stage.encoder(clip_pixels(zeros, 32), output_hidden_states=True).hidden_states[-2]
    nothing = {
        "ip-adapter": (torch.zeros(1, 20),),
        "ip-adapter-plus": (blank,),
        "ip-adapter-full-face": (blank,),
        "ip-adapter-faceid": (torch.zeros(1, 512),),
        "ip-adapter-faceid-plus": (torch.zeros(1, 512), blank),
    }
    for name, parts in nothing.items():
        with worn(stage, name) as (adapter,):
            seen: list[Any] = []
            adapter.parts.projection.register_forward_pre_hook(lambda _, xs, s=seen: s.append(xs))
            ours(stage, {adapter: value(name, (0,))}, steps=2)
        uncond = seen[1]
        assert all(
            differ(a, b) <= 1e-5 if b.any() else not a.any()
            for a, b in zip(uncond, parts, strict=True)
        )
        assert adapter.projected(parts).abs().max() > 0.1  # the projection of nothing is something
    assert differ(black, blank) > 1e-2
    assert blank.shape == (1, 17, HIDDEN)
