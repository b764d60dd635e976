"""Files that PEFT writes of its other methods compute what PEFT makes of them."""

import pytest
import refiners
import torch
from peft import (
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    get_peft_model,
)

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
                has_size = "ia3" in name or "magnitude" in name
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
