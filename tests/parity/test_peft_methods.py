"""Files that PEFT writes of its other methods compute what PEFT makes of them."""

from pathlib import Path

import pytest
import refiners
import torch
from peft import (
    BOFTConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    get_peft_model,
)
from peft.tuners.boft.layer import Linear as BoftLinear
from refiners_lora.method.input_rotation import InputRotation
from refiners_lora.peft_rotation import rotation

from refiners_core import Chain, Context, select

from .lora_network import networks

LAYERS = ["to_q", "to_k", "conv1", "conv_in", "downsamplers.0.conv", "linear_1"]
LINEAR = ["to_q", "to_k", "net.2"]
KINDS = {
    "DoRA": LoraConfig(r=4, lora_alpha=2, use_dora=True, target_modules=LAYERS),
    "LoRA with biases": LoraConfig(r=4, lora_alpha=2, lora_bias=True, target_modules=LAYERS),
    "LoHa": LoHaConfig(r=3, alpha=2, target_modules=LAYERS),
    "LoHa with cores": LoHaConfig(
        r=3, alpha=2, use_effective_conv2d=True, target_modules=LAYERS, rank_pattern={"to_q": 2}
    ),
    "LoKr": LoKrConfig(r=2, alpha=3, target_modules=LAYERS, alpha_pattern={"to_k": 1}),
    "LoKr with a core": LoKrConfig(
        r=1, alpha=3, use_effective_conv2d=True, decompose_both=True, target_modules=LAYERS
    ),
    "IA3": IA3Config(
        target_modules=[*LINEAR, "conv1", "downsamplers.0.conv"],
        feedforward_modules=["net.2", "downsamplers.0.conv"],
    ),
    "OFT": OFTConfig(oft_block_size=4, use_cayley_neumann=False, target_modules=LINEAR),
    "OFT of a series": OFTConfig(oft_block_size=4, target_modules=LINEAR),
    "OFT of three terms": OFTConfig(
        oft_block_size=8, num_cayley_neumann_terms=3, target_modules=LINEAR
    ),
    "OFT, one block for all": OFTConfig(oft_block_size=4, block_share=True, target_modules=LINEAR),
    "OFT, limited": OFTConfig(
        oft_block_size=4, coft=True, eps=0.3, use_cayley_neumann=False, target_modules=LINEAR
    ),
    "BOFT": BOFTConfig(boft_block_size=4, target_modules=[*LINEAR, "conv1", "downsamplers.0.conv"]),
}


@pytest.fixture(scope="module")
def pair(sd15_folder):
    pipe, folder = sd15_folder
    return pipe, refiners.load_model(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_unet_that_peft_saved_equals_its_own(pair, kind, tmp_path, differ):
    pipe, model = pair
    unet = pipe.unet
    state = {name: part.clone() for name, part in unet.state_dict().items()}
    peft = get_peft_model(unet, KINDS[kind])
    adapter = None
    try:
        generator = torch.Generator().manual_seed(2)
        for name, weight in peft.named_parameters():
            if weight.requires_grad:
                noise = torch.randn(weight.shape, generator=generator)
                has_size = "ia3" in name or "boft_s" in name or "magnitude" in name
                weight.data = weight.data * (1 + 0.2 * noise) if has_size else noise * 0.2
        peft.save_pretrained(tmp_path)
        adapter = refiners.load_adapter(tmp_path, model)
        _, ours, theirs = next(networks(pair, {adapter: 1.0}))
        assert differ(ours, theirs) <= 1e-5
        adapter.eject()
        assert differ(next(networks(pair, {}))[1], theirs) > 1e-3
    finally:
        peft.unload()
        model.eject_all()
        assert all(part.equal(state[name]) for name, part in unet.state_dict().items())


def test_a_boft_of_several_stages_equals_the_product_of_its_matrices(differ):
    """PEFT computes more than one stage on a GPU only; its matrices are here without one."""
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(3, 8, 4, 4, generator=generator)
    layer = BoftLinear.__new__(BoftLinear)
    turned = layer.cayley_batch(weights.flatten(0, 1)).unflatten(0, (3, 8))
    whole = torch.eye(32)
    for stage, blocks in enumerate(turned):
        order = layer.perm2mat(layer.block_butterfly_perm(32, 8 >> stage, 2, 2))
        whole = order @ torch.block_diag(*blocks) @ order.T @ whole
    linear, x = torch.nn.Linear(32, 12), torch.randn(5, 32, generator=generator)
    path = Path("boft.safetensors")
    tree = Chain(linear)
    (seat,) = select(tree)
    ours = InputRotation.of(seat, rotation(path, "linear", {"boft_R": weights}, {}), None)
    change = ours.run(Context(), x, linear.weight, linear.bias, 1.0)
    assert differ(linear(x) + change, linear(x @ whole)) <= 1e-5
    merged = linear.weight + ours.delta(linear.weight)["weight"]
    assert differ(merged, linear.weight @ whole.T) <= 1e-5
