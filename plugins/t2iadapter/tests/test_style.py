"""The style adapter, held to a straight line of the authors' formulas and to the contract."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from refiners_t2iadapter.style import StyleAdapter
from refiners_t2iadapter.style_network import StyleConfig
from torch import Tensor
from torch.nn.functional import layer_norm, multi_head_attention_forward

from refiners_core import Condition, Source
from refiners_core.errors import WeightsError
from refiners_core.models.clip import CLIP_IMAGE_KEYS, ClipImageConfig, clip_pixels
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.testing import LAWS, AdapterCase, tiny_model
from refiners_core.weights import save, write

ENCODER = ClipImageConfig(
    image_size=32, patch_size=16, width=12, inner_width=16, layers=1, heads=2, projection_width=8
)
SIZES = StyleConfig(tokens=3, layers=2, heads=2)
PICTURE = torch.rand(1, 3, 40, 32, generator=torch.Generator().manual_seed(1))


def make(**options: Any) -> StyleAdapter:
    torch.manual_seed(3)
    return StyleAdapter(encoder=ENCODER, config=SIZES, name="style", **options)


@pytest.mark.parametrize("law", LAWS)
def test_it_keeps_the_contract(law: Callable[[AdapterCase], None]):
    targets = [("unet.cross_attention", "inputs")]
    law(AdapterCase(make, condition=PICTURE, targets=targets))


def tokens_of(weights: dict[str, Tensor], features: Tensor) -> Tensor:
    """The tokens of a style, by the authors' formulas."""
    x = torch.cat([features, weights["style_embedding"].expand(len(features), -1, -1)], dim=1)

    def norm(x: Tensor, name: str) -> Tensor:
        return layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    x = norm(x, "ln_pre")
    for i in range(SIZES.layers):
        name = f"transformer_layes.{i}"
        y = norm(x, f"{name}.ln_1").transpose(0, 1)
        y, _ = multi_head_attention_forward(
            y, y, y, y.shape[-1], SIZES.heads,
            weights[f"{name}.attn.in_proj_weight"], weights[f"{name}.attn.in_proj_bias"],
            None, None, False, 0.0,
            weights[f"{name}.attn.out_proj.weight"], weights[f"{name}.attn.out_proj.bias"],
        )  # fmt: skip
        x = x + y.transpose(0, 1)
        y = norm(x, f"{name}.ln_2") @ weights[f"{name}.mlp.c_fc.weight"].T
        y = y + weights[f"{name}.mlp.c_fc.bias"]
        y = y * torch.sigmoid(1.702 * y)
        x = x + y @ weights[f"{name}.mlp.c_proj.weight"].T + weights[f"{name}.mlp.c_proj.bias"]
    return norm(x[:, -SIZES.tokens :], "ln_post") @ weights["proj"]


def latents(model: LatentDiffusion, conditions: Any, **options: Any) -> Tensor:
    defaults = {"steps": 2, "seed": 1, "output": "latents", "progress": False}
    return model.generate(
        "a cat", negative_prompt="dull", conditions=conditions, **defaults | options
    )


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_tokens_follow_those_of_the_text(guidance: float):
    model = tiny_model()
    adapter = make().inject(model)
    seen: list[Tensor] = []
    attention = model.slot("unet.cross_attention")[0].layer
    attention.layer("project.to_k", torch.nn.Linear).register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    condition = Condition(PICTURE, scale=0.5)
    options = {"guidance": guidance, "steps": 1} | (
        {"negative_prompt": ""} if guidance == 1 else {}
    )
    model.generate("a cat", conditions={adapter: condition}, **{
        "seed": 1, "output": "latents", "progress": False, "negative_prompt": "dull", **options
    })  # fmt: skip
    adapter.eject()
    encoder = adapter.encoder
    features = encoder.transformer(encoder.pre_norm(encoder.embed(clip_pixels(PICTURE, 32))))
    tokens = tokens_of(dict(adapter.published()), features)
    text = model.read(["dull", "a cat"], {})["text"]
    expected = torch.cat([text[1:], 0.5 * tokens], dim=1)
    if guidance > 1:
        expected = torch.cat([torch.cat([text[:1], text[:1, -3:]], dim=1), expected])
    torch.testing.assert_close(seen[0], expected, rtol=1e-5, atol=1e-5)


def published(folder: Path) -> dict[str, Path]:
    adapter = make().inject(tiny_model())
    adapter.save(folder / "style.safetensors")
    save(adapter.encoder, folder / "encoder.safetensors", CLIP_IMAGE_KEYS)
    return {"weights": folder / "style.safetensors", "encoder": folder / "encoder.safetensors"}


def loaded(files: dict[str, Path]) -> StyleAdapter:
    names = ("image_size", "patch_size", "width", "inner_width", "layers", "heads")
    sizes = {name.replace("_", "-"): getattr(ENCODER, name) for name in names}
    settings = {"encoder": sizes | {"projection-width": 8}, "heads": 2}
    return StyleAdapter(weights=lambda _: Source(files, settings), name="style")


def test_a_published_file_is_the_same_adapter(tmp_path: Path):
    model = tiny_model()
    with make().on(model) as adapter:
        expected = latents(model, {adapter: PICTURE})
    assert not torch.allclose(expected, latents(model, {}), atol=1e-4)
    with loaded(published(tmp_path)).on(model) as adapter:
        assert torch.equal(latents(model, {adapter: PICTURE}), expected)


def test_two_pictures_have_their_own_styles():
    model = tiny_model()
    adapter = make().inject(model)
    pictures = [PICTURE, PICTURE.flip(1)]
    both = latents(model, {adapter: pictures}, count=2)
    for i, picture in enumerate(pictures):
        alone = latents(model, {adapter: picture}, seed=1 + i)
        assert torch.allclose(both[i], alone[0], atol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"proj": torch.ones(12, 9)}, "turns 12 features into 9; this sd15 .* need 12 and 8"),
        ({"proj": torch.ones(16, 8)}, "turns 16 features into 8"),
    ],
)
def test_a_file_of_other_sizes_is_refused(change: Any, words: str, tmp_path: Path):
    files, model = published(tmp_path), tiny_model()
    write({**make().inject(tiny_model()).published(), **change}, files["weights"])
    with pytest.raises(WeightsError, match=words):
        loaded(files).inject(model)
    write({"conv_in.weight": torch.ones(1)}, files["weights"])
    with pytest.raises(WeightsError, match=r"holds 'conv_in.weight'.*not a T2I-Adapter for style"):
        loaded(files).inject(model)
    assert model.adapters == ()
