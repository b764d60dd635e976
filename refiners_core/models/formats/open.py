"""Models from local paths: published folders and single files, recognised by their content."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from refiners_core.errors import ModelError
from refiners_core.models.assembly import assemble, load_folder
from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.decoder import LanguageModel, is_decoder_folder, load_decoder
from refiners_core.models.diffusion import Family, LatentDiffusion
from refiners_core.models.families import FAMILIES, SUPPORTED, family_of_parts
from refiners_core.models.folder import PublishedFolder
from refiners_core.models.formats.markers import check_scale, facts_of
from refiners_core.models.formats.single_file import Parts, single_file_keys
from refiners_core.weights import TensorFile, load

_STEM: Final = "model.diffusion_model.input_blocks.0.0.weight"
"""The convolution that reads the latents, in a single file."""
_READS_TEXT: Final = re.compile(
    r"model\.diffusion_model\.input_blocks\.\d+\.1\..+\.attn2\.to_k\.weight"
)
"""The keys of layers that read the text, in a single file."""
_INPAINT_CHANNELS: Final = 9
_LENGTH: Final = 77
"""The number of tokens that the released text encoders read."""


def open_model(
    path: str | Path,
    *,
    tokenizer: ClipTokenizer | Callable[[str], ClipTokenizer] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> LatentDiffusion | LanguageModel:
    """Loads a model from a folder or from a single file.

    Args:
        path: A folder as diffusers publishes it, or as transformers publishes a language model; or
            a safetensors file with all parts.
        tokenizer: For a single file, which has none: a tokenizer, or a function that returns that
            of a base.
        dtype: The dtype to cast the weights to; as published by default.
        device: The device of the weights.

    Raises:
        ModelError: The path does not exist, or is not a supported model.
        WeightsError: A file is unreadable, or its tensors are not those of the model.
    """
    path = Path(path)
    if is_decoder_folder(path):
        return load_decoder(path, dtype=dtype, device=device)
    if path.is_dir():
        return open_folder(path, dtype=dtype, device=device)
    if path.is_file():
        return open_file(path, tokenizer=tokenizer, dtype=dtype, device=device)
    raise ModelError(
        f"{path} is neither a file nor a folder.",
        hint="Give a folder with unet/, vae/ and so on, the folder of a language model, or a "
        ".safetensors file.",
    )


def open_folder(
    path: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> LatentDiffusion:
    """Loads a model of any family as diffusers publishes it.

    Args:
        path: A folder with a folder for each part.
        dtype: The dtype to cast the weights to; as published by default.
        device: The device of the weights.

    Raises:
        ModelError: A part is missing, or the family is not supported.
        WeightsError: A file is unreadable, or its tensors are not those of the part.
    """
    return load_folder(FAMILIES[family_of(path)], path, dtype=dtype, device=device)


def family_of(path: str | Path) -> str:
    """Returns the family of a published folder from its configurations; weights may be missing.

    Raises:
        ModelError: A part is missing, or the family is not supported.
    """
    folder = PublishedFolder(path)
    named = str(folder.index().get("_class_name", "StableDiffusion"))
    if not named.startswith("StableDiffusion") or named.startswith("StableDiffusion3"):
        raise ModelError(f"{path} is a {named}.", hint=SUPPORTED)
    return family_of_parts(str(path), folder.parts, folder.config("unet")).name


def open_file(
    path: str | Path,
    *,
    tokenizer: ClipTokenizer | Callable[[str], ClipTokenizer] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> LatentDiffusion:
    """Loads a model from a single file in the layout of the original latent diffusion code.

    The header shows the family; the sizes are those of the released model, as in fine-tuned ones.

    Args:
        path: A safetensors file.
        tokenizer: The tokenizer, or a function that returns that of a base; a folder `tokenizer`
            beside the file goes before the function. Without a tokenizer the model can be edited,
            but cannot generate.
        dtype: The dtype to cast the weights to; as published by default.
        device: The device of the weights.

    Raises:
        ModelError: The file is not a whole model of a supported family but, say, a LoRA.
        WeightsError: The file is unreadable, or its tensors are not those of the model.
    """
    path = Path(path)
    with TensorFile(path) as file:
        shapes = {key: file.shape(key) for key in file.names()}
        family, channels = recognised(path, shapes)
        facts = facts_of(file, has_one_encoder=len(family.texts) == 1)
    if not isinstance(tokenizer, ClipTokenizer):
        tokenizer = _tokenizer(path.parent / "tokenizer", family.name, tokenizer)
    unet = replace(family.unet, in_channels=channels)
    model = assemble(
        family,
        unet=unet,
        schedule=replace(facts.schedule, spacing=facts.schedule.spacing or family.schedule.spacing),
        tokenizer=tokenizer,
        size=facts.size,
        device="meta",
    )
    check_scale(facts, model.autoencoder.config.scaling_factor)
    load(Parts(model), path, single_file_keys(model), dtype=dtype, device=device)
    return model


def recognised(path: str | Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Family, int]:
    """Returns the family of a single file and the channels that its UNet reads.

    Args:
        path: The file, for messages.
        shapes: The shape of each tensor in its header.

    Raises:
        ModelError: The file is not a whole model of a supported family but, say, a LoRA.
    """
    if not any(key.startswith("first_stage_model.") for key in shapes):
        examples = ", ".join(map(repr, [*shapes][:2])) or "no tensors"
        raise ModelError(
            f"{path} is not a whole model: it holds {examples}.",
            hint="Give a .safetensors file that has the UNet, the autoencoder and the text "
            "encoders.",
        )
    widths = (shape[1:2] for key, shape in shapes.items() if _READS_TEXT.fullmatch(key))
    width = next((size for sizes in widths for size in sizes), None)
    families = (family for family in FAMILIES.values() if family.unet.text_width == width)
    family = next(families, None)
    if family is None:
        reads = "reads no text" if width is None else f"reads texts of width {width}"
        raise ModelError(f"{path} is a model of another family: it {reads}.", hint=SUPPORTED)
    latents = family.unet.in_channels
    stem = shapes.get(_STEM, ())
    channels = stem[1] if len(stem) > 1 else latents
    if channels not in (latents, _INPAINT_CHANNELS):
        raise ModelError(
            f"{path} is a model of another kind: its UNet reads {channels} channels.",
            hint=SUPPORTED,
        )
    return family, channels


def _tokenizer(
    folder: Path, base: str, find: Callable[[str], ClipTokenizer] | None
) -> ClipTokenizer | None:
    if folder.is_dir():
        return ClipTokenizer.load(folder, _LENGTH)
    return None if find is None else find(base)
