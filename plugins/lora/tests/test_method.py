"""Every method: merged as forward, picture by picture, saved and read again, in half precision."""

import pytest
import refiners
import torch
from refiners_lora.adapter import Lora
from torch import nn

from refiners_core import Adapter, Condition, Source
from refiners_core.errors import AdapterError, ConditionError
from refiners_core.testing import tiny_model
from refiners_core.weights import write

LAYERS = {
    "lora_unet_conv_in": (8, 4, 3, 3),
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q": (16, 16),
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k": (16, 8),
    "lora_unet_down_blocks_0_downsamplers_0_conv": (8, 8, 3, 3),
    "lora_te_text_model_encoder_layers_0_mlp_fc1": (16, 8),
}
NORMS = {
    "lora_unet_mid_block_resnets_0_norm1": (16,),
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_norm2": (16,),
    "lora_te_text_model_final_layer_norm": (8,),
}
TOKENS = {"lora_te_text_model_embeddings_token_embedding": (514, 8)}


def pair(out, inner, *kernel):
    ones = [1] * len(kernel)
    return {"lora_down.weight": (2, inner, *kernel), "lora_up.weight": (out, 2, *ones)}


def core(out, inner, *kernel):
    if not kernel:
        return pair(out, inner)
    halves = {"lora_down.weight": (2, inner, 1, 1), "lora_up.weight": (out, 2, 1, 1)}
    return {**halves, "lora_mid.weight": (2, 2, *kernel)}


def flat(inner, kernel):
    return inner * (kernel[0] * kernel[1] if kernel else 1)


def hadamard(out, inner, *kernel):
    halves = {"a": (out, 3), "b": (3, flat(inner, kernel))}
    return {f"hada_w{i}_{half}": shape for i in "12" for half, shape in halves.items()}


def kronecker(out, inner, *kernel):
    second = {"lokr_w2_a": (out // 2, 1), "lokr_w2_b": (1, flat(inner // 2, kernel))}
    return {"lokr_w1": (2, 2), **second}


METHODS = {
    "LoRA": pair,
    "LoCon with a core": core,
    "DoRA": lambda out, *rest: pair(out, *rest) | {"dora_scale": (out, *(1 for _ in rest))},
    "DoRA of inputs": lambda out, inner, *kernel: (
        pair(out, inner, *kernel) | {"dora_scale": (1, inner, *(1 for _ in kernel))}
    ),
    "LoHa": hadamard,
    "LoKr": kronecker,
    "LoKr of whole factors": lambda out, inner, *kernel: {
        "lokr_w1": (2, 2), "lokr_w2": (out // 2, inner // 2, *kernel)
    },
    "GLoRA": lambda out, inner, *kernel: {
        "a1.weight": (inner, 2, *(1 for _ in kernel)),
        "a2.weight": (2, inner, *(1 for _ in kernel)),
        "b1.weight": (out, 2, *(1 for _ in kernel)),
        "b2.weight": (2, inner, *kernel),
    },
    "OFT": lambda out, *_: {"oft_blocks": (out // 4, 4, 4), "rescale": (out, 1)},
    "OFT of rotations": lambda out, *_: {"oft_diag": (out // 4, 4, 4)},
    "BOFT": lambda out, *_: {"oft_blocks": ({8: 2, 16: 3}[out], out // 4, 4, 4)},
    "IA3": lambda out, *_: {"weight": (out,), "on_input": ()},
    "OFT of PEFT": lambda out, *rest: {"input_rotation": (1, flat(rest[0], rest[1:]) // 4, 4, 4)},
    "BOFT of PEFT": lambda out, *rest: {
        "input_rotation": (3 if rest[0] == 16 else 1, flat(rest[0], rest[1:]) // 4, 4, 4),
        "rescale": (out,),
    },
    "difference": lambda out, *rest: {"diff": (out, *rest), "diff_b": (out,)},
    "LoRA and a bias": lambda out, *rest: pair(out, *rest) | {"diff_b": (out,)},
}  # fmt: skip


def tensors_of(method, seed=0):
    """Returns random weights of a method for all layers."""
    generator = torch.Generator().manual_seed(seed)
    layers = {name: METHODS[method](*shape) for name, shape in LAYERS.items()}
    if method == "difference":
        layers |= {name: {"w_norm": shape, "b_norm": shape} for name, shape in NORMS.items()}
    if method == "LoRA":
        a, b = (2, 514), (8, 2)
        layers |= {name: {"lora_embedding_A": a, "lora_embedding_B": b} for name in TOKENS}
    tensors = {}
    for name, roles in layers.items():
        for role, shape in roles.items():
            size = 0.2 if role in ("weight", "diff", "diff_b", "w_norm", "b_norm") else 0.4
            value = torch.randn(shape, generator=generator) * size
            value = 1 + value / 2 if role in ("dora_scale", "rescale") else value
            tensors[f"{name}.{role}"] = torch.tensor(0) if role == "on_input" else value
        if method not in ("IA3", "difference") and "OFT" not in method:
            tensors[f"{name}.alpha"] = torch.tensor(1.5)
    return tensors


def loaded(tensors, folder, name="style.safetensors", **options):
    write(tensors, folder / name)
    return Lora(weights=lambda _: Source({"weights": folder / name}), name="style", **options)


@torch.no_grad()
def outputs(model, context, rows=1):
    x = torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    text = torch.randn(rows, 3, 8, generator=torch.Generator().manual_seed(5))
    dtype = model.dtype
    values = {"timestep": torch.tensor(99), "text": text.to(dtype), **context}
    tokens = torch.tensor([[5, 6]] * rows)
    return model.unet(x.to(dtype), context=values), model.text_encoder(tokens, context=context)


def differ(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


@pytest.fixture(scope="module")
def model():
    """One model for all tests: each must leave it bare."""
    return tiny_model()


@pytest.mark.parametrize("method", METHODS)
def test_a_merged_adapter_computes_as_a_worn_one(method, model, tmp_path):
    before = {name: part.clone() for name, part in model.state_dict().items()}
    layers = [id(layer) for layer in model.modules()]
    adapter = loaded(tensors_of(method), tmp_path).inject(model)
    wearing = [id(layer) for layer in model.modules()]
    bare = outputs(model, {})
    worn = outputs(model, {adapter.scale_key: torch.tensor(0.6)})
    assert adapter.merge(0.6).merged_scale == 0.6
    for ours, theirs, without in zip(outputs(model, {}), worn, bare, strict=True):
        assert differ(ours, theirs) <= 1e-5
        assert differ(without, theirs) > 1e-3
    adapter.unmerge()
    assert len([id(layer) for layer in model.modules()]) == len(wearing)
    assert all(a.equal(b) for a, b in zip(outputs(model, {}), bare, strict=True))
    adapter.merge(-0.3).eject()
    assert [id(layer) for layer in model.modules()] == layers
    assert all(part.equal(before[name]) for name, part in model.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_each_picture_has_its_strength(method, model, tmp_path):
    with loaded(tensors_of(method), tmp_path).on(model) as adapter:
        scales = [1.0, 0.0, -0.5]
        arguments = {"steps": 1, "output": "latents", "progress": False}
        noise = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        together = model.generate(
            "a", count=3, latents=noise, conditions={adapter: Condition(scale=scales)}, **arguments
        )
        for i, scale in enumerate(scales):
            alone = model.generate(
                "a", latents=noise[i : i + 1], conditions={adapter: Condition(scale=scale)},
                **arguments,
            )  # fmt: skip
            assert differ(together[i : i + 1], alone) <= 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_file_means_the_same(method, model, tmp_path):
    with loaded(tensors_of(method), tmp_path).on(model) as adapter:
        worn = outputs(model, {adapter.scale_key: torch.tensor(1.0)})
        adapter.save(tmp_path / "again.safetensors")
    with refiners.load_adapter(tmp_path / "again.safetensors").on(model) as again:
        for a, b in zip(outputs(model, {again.scale_key: torch.tensor(1.0)}), worn, strict=True):
            assert differ(a, b) <= 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["DoRA", "OFT", "LoKr", "GLoRA"])
def test_half_precision_stays_finite_though_a_row_is_zero(method, dtype, tmp_path):
    model = tiny_model()
    layer = model.layer(
        "unet.mid.transformer.tokens.blocks.0.self_attention.attention.project.to_q"
    )
    layer.weight.data[0] = 0
    layer.weight.data[1] = 1e-9
    model.to(dtype)
    adapter = loaded(tensors_of(method), tmp_path).inject(model)
    worn, _ = outputs(model, {adapter.scale_key: torch.tensor(1.0, dtype=dtype)})
    assert worn.dtype is dtype
    assert worn.isfinite().all()


def test_two_doras_read_the_weight_of_the_base_in_any_order(model, tmp_path):
    first = loaded(tensors_of("DoRA", 1), tmp_path, "a.safetensors")
    second = loaded(tensors_of("DoRA", 2), tmp_path, "b.safetensors")
    first.inject(model), second.inject(model)
    scales = {first.scale_key: torch.tensor(1.0), second.scale_key: torch.tensor(1.0)}
    worn = outputs(model, scales)
    first.merge()
    half = outputs(model, {second.scale_key: torch.tensor(1.0)})
    second.merge()
    both = outputs(model, {})
    first.eject()
    first.inject(model).merge()
    again = outputs(model, {})
    model.eject_all()
    for a, b, c, d in zip(worn, half, both, again, strict=True):
        assert differ(b, a) <= 1e-5
        assert differ(c, a) <= 1e-5
        assert torch.equal(c, d)


def test_a_merged_adapter_takes_no_other_strength(model, tmp_path):
    adapter = loaded(tensors_of("LoRA"), tmp_path)
    with pytest.raises(AdapterError, match=r"is not worn\. Call its inject"):
        adapter.merge()
    with adapter.on(model):
        with pytest.raises(AdapterError, match=r"is not merged\. Call its merge\(\) first"):
            adapter.unmerge()
        with pytest.raises(AdapterError, match="a finite number, not nan"):
            adapter.merge(float("nan"))
        adapter.merge(0.5)
        with pytest.raises(AdapterError, match=r"is merged already, at scale 0\.5"):
            adapter.merge()
        for condition in (None, Condition(scale=0.8), Condition(scale=0.5, start=0.5)):
            with pytest.raises(
                ConditionError, match=r"is merged at scale 0\.5: a condition cannot"
            ):
                model.generate("a", conditions={adapter: condition}, progress=False)
        other = loaded(tensors_of("LoRA", 1), tmp_path, "b.safetensors")
        with pytest.raises(AdapterError, match=r"is merged, so its weights cannot be swapped"):
            adapter.hotswap(other)
        images = [
            model.generate("a", conditions=conditions, steps=1, seed=1, progress=False)
            for conditions in ({}, {adapter: Condition(scale=0.5)}, {adapter: Condition()})
        ]
        assert images[0].tobytes() == images[1].tobytes() == images[2].tobytes()


def test_what_depends_on_the_layer_itself_refuses_a_merge(model, tmp_path):
    class Louder(Adapter):
        def edits(self, model):
            return model.slot("unet.conv_in").wrap(
                lambda inner, seat: nn.Sequential(inner), stage="inputs"
            )

    adapter = loaded(tensors_of("LoRA"), tmp_path, key="z").inject(model)
    with Louder(key="a").on(model):
        with pytest.raises(AdapterError, match="another adapter changes what the layer reads"):
            adapter.merge()
        assert adapter.is_worn
        assert adapter.merged_scale is None
    adapter.merge().eject()
