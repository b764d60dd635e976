"""LyCORIS modules on the layers of a pipeline, with random weights, and the file they make."""

from contextlib import contextmanager

import torch
from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.dylora import DyLoraModule
from lycoris.modules.full import FullModule
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from lycoris.modules.norms import NormModule

UNET = (
    "conv_in",
    "time_embedding.linear_1",
    "down_blocks.0.downsamplers.0.conv",
    "mid_block.resnets.0.conv1",
    "mid_block.attentions.0.proj_in",
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
    "up_blocks.0.resnets.0.conv_shortcut",
    "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
)
TEXT = ("encoder.layers.0.mlp.fc2", "encoder.layers.1.self_attn.q_proj")
NORMS = ("mid_block.resnets.0.norm1", "mid_block.attentions.0.transformer_blocks.0.norm2")
TEXT_NORMS = ("encoder.layers.1.layer_norm1", "final_layer_norm")

RANK = {"lora_dim": 4, "alpha": 3}
CORE = {**RANK, "use_tucker": True}
KINDS = {
    "LoCon": (LoConModule, RANK),
    "LoCon with a core": (LoConModule, CORE),
    "LoCon, stabilised": (LoConModule, {**RANK, "rs_lora": True}),
    "DoRA of outputs": (LoConModule, {**RANK, "weight_decompose": True}),
    "DoRA of inputs": (LoConModule, {**RANK, "weight_decompose": True, "wd_on_out": False}),
    "LoHa": (LohaModule, RANK),
    "LoHa with cores": (LohaModule, CORE),
    "LoHa with magnitudes": (LohaModule, {**RANK, "weight_decompose": True}),
    "LoKr": (LokrModule, {"lora_dim": 1, "alpha": 3, "factor": 2}),
    "LoKr of products": (
        LokrModule,
        {"lora_dim": 1, "alpha": 3, "factor": 4, "decompose_both": True},
    ),
    "LoKr with a core": (LokrModule, {"lora_dim": 1, "alpha": 3, "factor": 2, "use_tucker": True}),
    "LoKr of whole factors": (LokrModule, {**RANK, "full_matrix": True}),
    "LoKr with magnitudes": (
        LokrModule,
        {"lora_dim": 1, "alpha": 3, "factor": 2, "weight_decompose": True},
    ),
    "OFT": (DiagOFTModule, {"lora_dim": 4}),
    "OFT, limited": (DiagOFTModule, {"lora_dim": 4, "constraint": 0.02}),
    "OFT, rescaled": (DiagOFTModule, {"lora_dim": 4, "rescaled": True}),
    "BOFT": (ButterflyOFTModule, {"lora_dim": 4}),
    "BOFT, limited": (ButterflyOFTModule, {"lora_dim": 4, "constraint": 0.02, "rescaled": True}),
    "GLoRA": (GLoRAModule, RANK),
    "whole differences": (FullModule, {}),
    "IA3 of outputs": (IA3Module, {}),
    "IA3 of inputs": (IA3Module, {"train_on_input": True}),
    "norms": (NormModule, {}),
}
"""The kinds of files that LyCORIS makes."""
DYLORA = DyLoraModule, {"lora_dim": 4, "alpha": 3, "block_size": 2}


def layers_of(pipe, kind):
    """Returns the layers that a kind changes, by the names that kohya's trainer gives them."""
    unet, text = (NORMS, TEXT_NORMS) if kind == "norms" else (UNET, TEXT)
    has_pair = hasattr(pipe, "text_encoder_2")
    layers = {f"lora_unet_{name}": pipe.unet.get_submodule(name) for name in unet}
    for name in text:
        prefix = "lora_te1_text_model_" if has_pair else "lora_te_text_model_"
        layers[prefix + name] = pipe.text_encoder.get_submodule(name)
    return {name.replace(".", "_"): layer for name, layer in layers.items()}


@contextmanager
def trained(pipe, kind, multiplier=1.0, seed=3):
    """Puts modules with random weights on a pipeline; yields the tensors of their file."""
    make, options = KINDS[kind]
    generator = torch.Generator().manual_seed(seed)
    modules, tensors = [], {}
    for name, layer in layers_of(pipe, kind).items():
        module = make(name, layer, multiplier, **options)
        for role, weight in module.named_parameters():
            weight.data = weight.data + drawn(weight.shape, role, generator)
        if make is FullModule:
            change = {role: weight.detach().clone() for role, weight in module.named_parameters()}
            state = {"diff": change["weight"]} | (
                {"diff_b": change["bias"]} if "bias" in change else {}
            )
        else:
            state = module.state_dict()
        state = {role: part.detach().clone().contiguous() for role, part in state.items()}
        tensors |= {f"{name}.{role}": part for role, part in state.items()}
        modules.append(module)
    for module in modules:
        module.apply_to()
    try:
        yield tensors
    finally:
        for module in modules:
            module.restore()


def drawn(shape, role, generator):
    """Returns random numbers, of a size at which the effect is neither lost nor huge."""
    size = 0.05 if role in ("weight", "bias") or "rescale" in role else 0.25
    return torch.randn(shape, generator=generator) * size
