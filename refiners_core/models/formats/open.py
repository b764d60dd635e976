"""Models from where they lie: published folders and single files, told apart by what is in them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from refiners_core.errors import ModelError
from refiners_core.models import sd15, sdxl
from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.folder import PublishedFolder
from refiners_core.models.formats.markers import check_scale, facts_of
from refiners_core.models.formats.single_file import Parts, single_file_keys
from refiners_core.models.unet import UNetConfig
from refiners_core.weights import PICKLES, Detected, TensorFile, detect, load, rewriting_hint

FAMILIES: Final[dict[str, Any]] = {"sd15": sd15, "sdxl": sdxl}
"""The modules that build models, by what the models are called as a base of adapters."""
_INPAINT_CHANNELS: Final = 9
_LENGTH: Final = 77
"""How many tokens the released text encoders read, where a tokenizer does not say."""


def open_model(
    path: str | Path,
    *,
    tokenizer: ClipTokenizer | Callable[[str], ClipTokenizer] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> LatentDiffusion:
    """Reads a model from a folder or from a single file.

    Args:
        path: A folder as diffusers publishes it, or a safetensors file with all parts.
        tokenizer: For a file, which has none: a tokenizer, or what returns that of a base.
        dtype: What weights are cast to; as published by default.
        device: Where they go.

    Raises:
        ModelError: There is nothing, or something else.
        WeightsError: A file is unreadable, or its tensors are not those of the model.
    """
    path = Path(path)
    if path.is_dir():
        return open_folder(path, dtype=dtype, device=device)
    if path.is_file():
        return open_file(path, tokenizer=tokenizer, dtype=dtype, device=device)
    raise ModelError(
        f"there is no file and no folder {path}.",
        hint="Give a folder with unet/, vae/ and so on, or a .safetensors file.",
    )


def open_folder(
    path: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> LatentDiffusion:
    """Reads a model as diffusers publishes it, of whichever family it is.

    Args:
        path: Has a folder for each part.
        dtype: What weights are cast to; as published by default.
        device: Where they go.

    Raises:
        ModelError: A part is missing, or the model is of a family that is not known here.
        WeightsError: A file is unreadable, or not that of the part.
    """
    return FAMILIES[family_of(path)].load_folder(path, dtype=dtype, device=device)


def family_of(path: str | Path) -> str:
    """Returns what a published folder is, by its configurations alone: its weights may be missing.

    Raises:
        ModelError: A part is missing, or the model is of a family that is not known here.
    """
    folder = PublishedFolder(path)
    named = str(folder.index().get("_class_name", "StableDiffusion"))
    width = folder.config("unet").get("cross_attention_dim")
    if not named.startswith("StableDiffusion") or named.startswith("StableDiffusion3"):
        raise ModelError(f"{path} is of {named}.", hint=_KNOWN)
    if width == 1024:
        raise ModelError(f"{path} is Stable Diffusion 2.", hint=_KNOWN)
    return "sdxl" if (folder.path / "text_encoder_2").is_dir() else "sd15"


def open_file(
    path: str | Path,
    *,
    tokenizer: ClipTokenizer | Callable[[str], ClipTokenizer] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> LatentDiffusion:
    """Reads a model from a single file in the layout of latent diffusion's code.

    Its sizes are those of the release that its header looks like; fine-tuned ones have the same.

    Args:
        path: A safetensors file.
        tokenizer: Without one the model can be looked at and edited, but not generate. A function
            is asked for that of a base, unless there is a folder `tokenizer` beside the file.
        dtype: What weights are cast to; as published by default.
        device: Where they go.

    Raises:
        ModelError: It is something else: a LoRA, a part, a model of another family.
        WeightsError: It is unreadable, or its tensors are not those of the model.
    """
    path = Path(path)
    if path.suffix in PICKLES:
        raise ModelError(
            f"{path} is a pickle, which could run any code, so it was not opened.",
            hint=rewriting_hint(path, path.with_suffix(".safetensors")),
        )
    with TensorFile(path) as file:
        shapes = {key: file.shape(key) for key in file.names()}
        found = recognised(path, shapes)
        facts = facts_of(file, has_one_encoder=found.base == "sd15")
    assert found.base is not None
    if not isinstance(tokenizer, ClipTokenizer):
        tokenizer = _tokenizer(path.parent / "tokenizer", found.base, tokenizer)
    family = FAMILIES[found.base]
    sizes: UNetConfig = sdxl.UNET if found.base == "sdxl" else UNetConfig()
    if found.variant == "inpaint":
        sizes = replace(sizes, in_channels=_INPAINT_CHANNELS)
    asked = {} if facts.size is None else {"size": facts.size}
    model = family.build(
        unet=sizes, schedule=facts.schedule, tokenizer=tokenizer, device="meta", **asked
    )
    check_scale(facts, model.autoencoder.config.scaling_factor)
    load(Parts(model), path, single_file_keys(model), dtype=dtype, device=device)
    return model


def recognised(path: str | Path, shapes: Mapping[str, tuple[int, ...]]) -> Detected:
    """Returns which model a single file is, by the shapes in its header.

    Raises:
        ModelError: It is something else: a LoRA, a part, a model of another family.
    """
    found = detect(shapes)
    if found.family != "model" or found.base not in FAMILIES or found.variant == "edit":
        raise ModelError(f"{path} is {found}.", hint=_hint(found))
    return found


_KNOWN: Final = "Known here are Stable Diffusion 1.5 and XL."
_HINTS: Final = {
    "lora": "It goes on a model: load the model first, then the LoRA as an adapter.",
    "unet": "Give the file, or the folder, of a whole model.",
    "unknown": "Give a .safetensors file that has the UNet, the autoencoder and the text encoders.",
}


def _tokenizer(
    beside: Path, base: str, find: Callable[[str], ClipTokenizer] | None
) -> ClipTokenizer | None:
    if beside.is_dir():
        return ClipTokenizer.load(beside, _LENGTH)
    return None if find is None else find(base)


def _hint(found: Detected) -> str:
    if found.family == "model":
        return _KNOWN
    if found.family in ("autoencoder", "text-encoder", "image-encoder"):
        return _HINTS["unet"]
    return _HINTS.get(found.family, "It goes on a model as an adapter: load the model first.")
