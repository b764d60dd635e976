"""Files of every method become plain LoRAs of equal effect, or are refused in words."""

import pytest
import torch
from refiners_lora.adapter import Lora
from refiners_lora.rework import convert, merge, resize

from refiners_core import Source
from refiners_core.errors import AdapterError, WeightsError
from refiners_core.testing import tiny_model
from refiners_core.weights import write

CONV = "lora_unet_down_blocks_0_downsamplers_0_conv"
QUERY = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
LAYERS = {
    CONV: (8, 8, 3, 3),
    QUERY: (16, 16),
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k": (16, 8),
    "lora_te_text_model_encoder_layers_0_mlp_fc1": (16, 8),
}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def outline():
    return tiny_model().to("meta")


def close(ours, theirs, bar=1e-6):
    return bool((ours - theirs).norm() <= bar * theirs.norm())


@torch.no_grad()
def picture(model, path=None):
    """Returns the latents that a model makes, with a LoRA file perhaps."""
    arguments = {"steps": 2, "seed": 1, "output": "latents", "progress": False}
    if path is None:
        return model.generate("a", **arguments)
    with Lora(weights=lambda _: Source({"weights": path}), name="style").on(model):
        return model.generate("a", **arguments)


def pair(out, inner, *kernel):
    ones = [1] * len(kernel)
    return {"lora_down.weight": (2, inner, *kernel), "lora_up.weight": (out, 2, *ones)}


def core(out, inner, *kernel):
    ones = [1] * len(kernel)
    halves = {"lora_down.weight": (2, inner, *ones), "lora_up.weight": (out, 2, *ones)}
    return halves | ({"lora_mid.weight": (2, 2, *kernel)} if kernel else {})


def hadamard(out, inner, *kernel):
    halves = {"a": (out, 1), "b": (1, inner * (9 if kernel else 1))}
    return {f"hada_w{i}_{half}": shape for i in "12" for half, shape in halves.items()}


def kronecker(out, inner, *kernel):
    width = inner // 2 * (9 if kernel else 1)
    return {"lokr_w1": (2, 2), "lokr_w2_a": (out // 2, 1), "lokr_w2_b": (1, width)}


METHODS = {
    "LoRA": pair,
    "core": core,
    "LoHa": hadamard,
    "LoKr": kronecker,
    "DoRA": lambda out, *rest: pair(out, *rest) | {"dora_scale": (out, *(1 for _ in rest))},
}


def written(method, path, more=()):
    """Writes a file of a method for all layers, and returns its path."""
    generator = torch.Generator().manual_seed(3)
    tensors = dict(more)
    for name, shape in LAYERS.items():
        for role, size in METHODS[method](*shape).items():
            value = torch.randn(size, generator=generator) * 0.4
            tensors[f"{name}.{role}"] = 1 + value if role == "dora_scale" else value
        tensors[f"{name}.alpha"] = torch.tensor(1.5)
    write(tensors, path)
    return path


@pytest.mark.parametrize("kind", ["LoHa", "LoKr", "core"])
def test_a_method_of_low_rank_becomes_a_plain_lora_of_equal_pictures(
    kind, model, outline, tmp_path
):
    converted = convert(written(kind, tmp_path / "other.safetensors"), outline)
    assert converted.groups[-1].worst <= 1e-5
    converted.save(tmp_path / "plain.safetensors")
    ours, theirs = (picture(model, tmp_path / f"{n}.safetensors") for n in ("plain", "other"))
    assert close(ours, theirs, 1e-4)
    assert not close(ours, picture(model), 1e-3)


def test_a_method_of_full_rank_needs_a_rank_and_the_weights(model, outline, tmp_path):
    path = written("DoRA", tmp_path / "dora.safetensors")
    with pytest.raises(AdapterError, match="depends on the weights"):
        convert(path, outline)
    with pytest.raises(AdapterError, match=r"full rank.*rank=32"):
        convert(path, model)
    errors = [convert(path, model, rank).groups[-1].total for rank in (2, 4, 16)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] <= 1e-5
    with pytest.raises(AdapterError, match="concat cannot carry"):
        merge({path: 1.0}, model)


def test_a_plain_lora_survives_all_layouts_bit_for_bit(outline, tmp_path):
    path = written("LoRA", tmp_path / "style.safetensors")
    before = convert(path, outline)
    for layout in ("kohya", "peft", "diffusers", "peft", "kohya", "diffusers"):
        converted = convert(path, outline)
        path = tmp_path / f"{layout}{len([*tmp_path.iterdir()])}.safetensors"
        converted.save(path, layout)
    after = convert(path, outline)
    assert after.groups[-1].total == 0
    half = convert(path, outline, dtype=torch.float16)
    assert {factors.up.dtype for _, factors in half.layers.values()} == {torch.float16}
    assert 1e-5 < half.groups[-1].total < 1e-3
    for name, (_, factors) in before.layers.items():
        again = after.layers[name][1]
        assert again.alpha == factors.alpha
        assert again.down.equal(factors.down)
        assert again.up.equal(factors.up)


BESIDE = {
    "a change of a bias": {f"{QUERY}.diff_b": torch.ones(16)},
    "a change of a norm": {"lora_unet_mid_block_resnets_0_norm1.w_norm": torch.ones(16)},
    "a change of token embeddings": {
        "lora_te_text_model_embeddings_token_embedding.lora_embedding_A": torch.ones(2, 514),
        "lora_te_text_model_embeddings_token_embedding.lora_embedding_B": torch.ones(8, 2),
    },
    "a change of a layer that the model does not have": {
        "lora_unet_nothing.lora_down.weight": torch.ones(2, 4),
        "lora_unet_nothing.lora_up.weight": torch.ones(4, 2),
    },
}


@pytest.mark.filterwarnings("ignore:style.safetensors")
@pytest.mark.parametrize("what", BESIDE)
def test_what_a_plain_lora_cannot_carry_is_refused_unless_dropped(what, outline, tmp_path):
    path = written("LoRA", tmp_path / "style.safetensors", BESIDE[what])
    for make in (lambda **o: convert(path, outline, **o), lambda **o: resize(path, outline, 2, **o),
                 lambda **o: merge({path: 1.0}, outline, **o)):  # fmt: skip
        with pytest.raises(AdapterError, match=rf"cannot carry: {what}.*drop=True"):
            make()
        made = make(drop=True)
        assert [dropped.what for dropped in made.dropped] == [what]
        assert len(made.layers) == len(LAYERS)


def test_a_folder_without_weights_is_refused(outline, tmp_path):
    with pytest.raises(WeightsError, match=r"neither adapter_model.safetensors nor"):
        convert(tmp_path, outline)
