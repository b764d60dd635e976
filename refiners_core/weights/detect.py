"""Detects the kind of a weights file from the names and shapes in its header alone."""

import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal, NamedTuple

Shape = tuple[int, ...]
Family = Literal[
    "model",
    "unet",
    "autoencoder",
    "text-encoder",
    "image-encoder",
    "controlnet",
    "control-lora",
    "t2i-adapter",
    "ip-adapter",
    "lora",
    "textual-inversion",
    "unknown",
]


class Detected(NamedTuple):
    """The kind of a weights file."""

    family: Family
    kind: str = ""
    """The layout, such as `ldm`, `diffusers` or `kohya`; for an IP-Adapter, its projection."""
    base: str | None = None
    """The family of models that it is or was made for; None if the shapes leave it open."""
    variant: str = ""
    """A further distinction: `inpaint`, `edit` or `union`; empty for none."""

    def __str__(self) -> str:
        name = _NAMES[self.family]
        base = "" if self.base is None else f" of {self.base}"
        details = ", ".join(filter(None, (self.kind, self.variant)))
        return f"{name}{base}" + (f" ({details})" if details else "")


def detect(shapes: Mapping[str, Shape]) -> Detected:
    """Returns the kind of a file with tensors of these names and shapes.

    Models with identical layouts cannot be told apart: an IP-Adapter Plus, Plus Face and
    Composition look the same, and so do InstantID and one FaceID portrait.

    Args:
        shapes: The shape of each tensor, from `TensorFile` or a header.

    Example:
        >>> str(detect({"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (4, 320)}))
        'a LoRA (kohya)'
    """
    for find in (_adapter, _single_file, _part):
        if detected := find(shapes):
            return detected
    return Detected("unknown")


def _adapter(shapes: Mapping[str, Shape]) -> Detected | None:
    base = _base(shapes)
    if _begins(shapes, "ip_adapter.", "image_proj."):
        return Detected("ip-adapter", _projection(shapes), base)
    if "lora_controlnet" in shapes:
        return Detected("control-lora", "ldm", base)
    if _begins(shapes, "controlnet_cond_embedding."):
        variant = "union" if "task_embedding" in shapes else ""
        return Detected("controlnet", "diffusers", base, variant)
    if _begins(shapes, "control_model.", "input_hint_block."):
        return Detected("controlnet", "ldm", base)
    if _begins(shapes, "adapter.body.", "body.") and any(".block1." in key for key in shapes):
        return Detected("t2i-adapter", "diffusers" if _begins(shapes, "adapter.") else "original")
    if kind := next((kind for kind, mark in _LORAS.items() if _any(mark, shapes)), None):
        return Detected("lora", kind, base or _base_of_text_lora(shapes))
    if {"emb_params", "clip_l", "clip_g"} & shapes.keys() and len(shapes) <= 2:
        return Detected("textual-inversion", "", "sdxl" if "clip_g" in shapes else None)
    return None


def _single_file(shapes: Mapping[str, Shape]) -> Detected | None:
    prefix = next((start for start in _LDM if _begins(shapes, f"{start}input_blocks.")), None)
    if prefix is None:
        foreign = _begins(shapes, "model.diffusion_model.")
        return Detected("model", "of another architecture") if foreign else None
    family: Family = "model" if _begins(shapes, "first_stage_model.") else "unet"
    channels = shapes.get(f"{prefix}input_blocks.0.0.weight", (0, 0))[1]
    return Detected(family, "ldm", _base(shapes), _CHANNELS.get(channels, ""))


def _part(shapes: Mapping[str, Shape]) -> Detected | None:
    if _begins(shapes, "vision_model."):
        return Detected("image-encoder", "transformers")
    if _any(_TEXT_ENCODER, shapes):
        return Detected("text-encoder", "transformers")
    if _begins(shapes, "encoder.down_blocks."):
        return Detected("autoencoder", "diffusers")
    if _begins(shapes, "encoder.down."):
        return Detected("autoencoder", "ldm")
    if _begins(shapes, "down_blocks.") and _begins(shapes, "up_blocks."):
        channels = shapes.get("conv_in.weight", (0, 0))[1]
        return Detected("unet", "diffusers", _base(shapes), _CHANNELS.get(channels, ""))
    return None


def _base(shapes: Mapping[str, Shape]) -> str | None:
    """Returns the family, from the width of the text features that cross-attentions read."""
    for key, shape in shapes.items():
        if len(shape) == 2 and _READS_TEXT.search(key):
            return _BASES.get(shape[1])
    return None


def _base_of_text_lora(shapes: Mapping[str, Shape]) -> str | None:
    is_pair = _begins(shapes, "lora_te1_", "lora_te2_", "text_encoder_2.")
    return "sdxl" if is_pair else None


def _projection(shapes: Mapping[str, Shape]) -> str:
    for key, kind in _PROJECTIONS.items():
        if f"image_proj.{key}" in shapes:
            reads_faces = key == "latents" and shapes.get("image_proj.proj_in.weight", (0, 0))[1]
            return "instantid" if reads_faces == 512 else kind
    return ""


def _begins(keys: Iterable[str], *prefixes: str) -> bool:
    return any(key.startswith(prefixes) for key in keys)


def _any(pattern: re.Pattern[str], keys: Iterable[str]) -> bool:
    return any(pattern.search(key) for key in keys)


_NAMES: Final[dict[Family, str]] = {
    "model": "a whole model",
    "unet": "a UNet",
    "autoencoder": "an autoencoder",
    "text-encoder": "a text encoder",
    "image-encoder": "an image encoder",
    "controlnet": "a ControlNet",
    "control-lora": "a Control-LoRA",
    "t2i-adapter": "a T2I-Adapter",
    "ip-adapter": "an IP-Adapter",
    "lora": "a LoRA",
    "textual-inversion": "a textual inversion",
    "unknown": "of an unknown kind",
}
_BASES: Final = {768: "sd15", 1024: "sd2", 1280: "sdxl-refiner", 2048: "sdxl"}
_CHANNELS: Final = {8: "edit", 9: "inpaint"}
"""The variants of UNets with more input channels than latents have."""
_LDM: Final = ("model.diffusion_model.", "")
_PROJECTIONS: Final = {
    "proj.weight": "base",
    "proj.3.weight": "full",
    "perceiver_resampler.proj_in.weight": "faceid-plus",
    "norm.weight": "faceid",
    "latents": "plus",
}
_READS_TEXT: Final = re.compile(
    r"attn2[._](processor\.)?to_k(_lora)?\.(weight|(lora[._])?down(\.weight)?|lora_A\.weight)$"
    r"|to_k_ip\.weight$"
)
_LORAS: Final = {
    "kohya": re.compile(r"^lora_(unet|te\d?)_"),
    "peft": re.compile(r"\.lora_[AB]\.(\w+\.)?weight$"),
    "diffusers": re.compile(r"(\.lora|_lora|lora_linear_layer)\.(down|up)\.weight$"),
}
_TEXT_ENCODER: Final = re.compile(r"^(text_model\.)?embeddings\.token_embedding\.weight$")
