"""The dialects in which LoRAs are shared, written out of random factors.

Factors are `{(component, diffusers' name of a layer): (down, up, alpha)}`.
"""

import re

import torch

PARTS = {"sd15": ["unet", "text_encoder"], "sdxl": ["unet", "text_encoder", "text_encoder_2"]}
SOME = r"^(?!.*(attentions|resnets|layers)\.[1-9]\.)"  # the first of each block
_ATTENTION = r"attn[12]\.to_(q|k|v|out\.0)|(q|k|v|out)_proj"
_LINEAR = _ATTENTION + r"|ff\.net\.(0\.proj|2)|proj_(in|out)|time_emb_proj|fc[12]"
_ALL = (
    _LINEAR + r"|conv[12]|conv_shortcut|samplers\.0\.conv|text_projection|conv_in|conv_out"
    r"|(time|add)_embedding\.linear_[12]"
)
ATTENTION, LINEAR, ALL = (
    re.compile(rf"{SOME}(.*\.)?({layers})$") for layers in (_ATTENTION, _LINEAR, _ALL)
)


def factors_of(pipe, base, pattern, seed=0):
    """Random factors and an alpha of its own for each layer that the pattern finds."""
    generator, lora = torch.Generator().manual_seed(seed), {}
    for part in PARTS[base]:
        for name, layer in getattr(pipe, part).named_modules():
            if not pattern.search(name) or isinstance(layer, torch.nn.Sequential):
                continue
            if name.startswith("encoder."):  # as transformers keeps it; published it is longer
                name = f"text_model.{name}"
            rank, is_conv = len(lora) % 3 + 2, layer.weight.ndim == 4
            down = torch.randn(rank, *layer.weight.shape[1:], generator=generator)
            up = torch.randn(layer.weight.shape[0], rank, generator=generator)
            down *= 0.4 / down[0].numel() ** 0.5
            up = up[:, :, None, None] if is_conv else up
            lora[part, name] = down, up * 0.4, float(len(lora) % 5 + 1)
    return lora


def kohya(factors, base, rename=lambda part, name: name):
    """The names of kohya's trainer: dots as underscores, an alpha each."""
    tensors = {}
    for (part, name), (down, up, alpha) in factors.items():
        prefix = "lora_unet" if part == "unet" else f"lora_te{_number(part, base)}"
        flat = f"{prefix}_{rename(part, name).replace('.', '_')}"
        tensors |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
        tensors[f"{flat}.alpha"] = torch.tensor(alpha)
    return tensors


def _number(part, base):
    return "" if base == "sd15" else {"text_encoder": "1", "text_encoder_2": "2"}[part]


def ldm(base):
    """Returns what names a layer as latent diffusion's code does, for two layers in each block."""

    def renamed(part, name):
        if part != "unet":
            return name
        if name in _ENDS:
            return _ENDS[name]
        way, block, rest = name.split(".", 2)
        if way == "mid_block":
            kind, (i, _, layer) = block, rest.partition(".")
            place = "1" if kind == "attentions" else str(2 * int(i))
            return f"middle_block.{place}.{_INNER.get(layer, layer)}"
        kind, i, layer = rest.split(".", 2)
        first = 3 * int(block)
        if kind == "downsamplers":
            return f"input_blocks.{first + 3}.0.op"
        if kind == "upsamplers":
            has_attention = base == "sdxl" or block != "0"
            return f"output_blocks.{first + 2}.{1 + has_attention}.conv"
        place = f"input_blocks.{first + 1 + int(i)}"
        if way == "up_blocks":
            place = f"output_blocks.{first + int(i)}"
        return f"{place}.{int(kind == 'attentions')}.{_INNER.get(layer, layer)}"

    return renamed


_ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_INNER = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def old(factors, prefix="unet."):
    """The names of diffusers before PEFT: factors in attention processors, no alpha."""
    tensors = {}
    for (part, name), (down, up, _) in factors.items():
        if part == "unet":
            above, _, layer = name.removesuffix(".0").rpartition(".")
            place = f"{prefix}{above}.processor.{layer}_lora"
        else:
            place = f"{part}.{name}.lora_linear_layer"
        tensors |= {f"{place}.down.weight": down, f"{place}.up.weight": up}
    return tensors


def older(factors):
    """The names of diffusers before PEFT, for layers outside attention: without alpha."""
    tensors = {}
    for (part, name), (down, up, _) in factors.items():
        place = f"{part}.{name}.{'lora' if part == 'unet' else 'lora_linear_layer'}"
        tensors |= {f"{place}.down.weight": down, f"{place}.up.weight": up}
    return tensors


def peft(factors):
    """The names of diffusers with PEFT; alphas are the ranks."""
    return {
        f"{part}.{name}.lora_{half}.weight": weight
        for (part, name), (down, up, _) in factors.items()
        for half, weight in (("A", down), ("B", up))
    }
