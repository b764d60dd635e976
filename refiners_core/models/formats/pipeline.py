"""Models from loaded pipelines of diffusers, and pipelines from models; tensors are shared."""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from torch import Tensor, nn

from refiners_core.errors import ModelError
from refiners_core.models.assembly import assemble_published
from refiners_core.models.clip.pair import TextEncoderPair
from refiners_core.models.clip.text import ClipTextEncoder
from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.families import family_of_parts
from refiners_core.models.formats import diffusers_config
from refiners_core.models.formats.live_pipeline import check_part, tensors_of, tiles, unwrapped
from refiners_core.models.pipeline_index import check_index
from refiners_core.models.vae import Tiling
from refiners_core.weights import KeyMap, MisfitError, load, published

_NEEDED: Final = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_NETWORKS: Final = ("unet", "vae", "text_encoder", "text_encoder_2")


def is_pipeline(value: object) -> bool:
    """Whether an object looks like a pipeline of diffusers, which is not imported."""
    return isinstance(getattr(value, "components", None), Mapping)


def from_pipeline(pipe: Any) -> LatentDiffusion:
    """Returns a model that shares the tensors of a pipeline of diffusers; none is copied.

    Training one trains the other. The pipeline stays as it is: adapters go on the model alone.

    Args:
        pipe: A `StableDiffusionPipeline` or `StableDiffusionXLPipeline`, or one with their parts.

    Raises:
        ModelError: The pipeline lacks a part, or a part is of another family, is offloaded, or has
            a state that changes its results (FreeU, hooks, attention processors, quantisation).
        MisfitError: The pipeline has a LoRA loaded.
    """
    parts = {name: unwrapped(part) for name, part in dict(pipe.components).items()}
    if missing := [name for name in _NEEDED if parts.get(name) is None]:
        raise ModelError(
            f"this {type(pipe).__name__} has no {', '.join(missing)}.",
            hint="Give a StableDiffusionPipeline or a StableDiffusionXLPipeline.",
        )
    check_index(dict(pipe.config), type(pipe).__name__)
    for name in _NETWORKS:
        if isinstance(parts.get(name), nn.Module):
            check_part(name, parts[name])
    kind = f"this {type(pipe).__name__}"
    present = {name for name, part in parts.items() if part is not None}
    family = family_of_parts(kind, present, _config(parts["unet"]))

    def tokenizer(name: str, length: int) -> ClipTokenizer | None:
        return _tokenizer(parts[name], length) if name in present else None

    model = assemble_published(family, pipe.config, lambda name: _config(parts[name]), tokenizer)
    if tiles(parts["vae"]):
        model.autoencoder.tiling = Tiling()
    for name, (part, keys) in model.family.parts_of(model).items():
        _share(part, parts[name], keys)
    return model


def to_diffusers(model: LatentDiffusion) -> Any:
    """Returns a pipeline of diffusers that shares the tensors of a model; none is copied.

    The pipeline is the bare model: worn adapters are left out unless they are merged first. It
    samples with DDIM on the model's noise schedule.

    Args:
        model: A model with weights and a tokenizer.

    Returns:
        A `StableDiffusionPipeline` or a `StableDiffusionXLPipeline`.

    Raises:
        ModelError: diffusers is not installed, or the model has no tokenizer or no weights.
    """
    try:
        import diffusers
        import transformers
    except ImportError as error:
        raise ModelError(
            f"a pipeline of diffusers needs {error.name}, which is not installed.",
            hint="Try pip install diffusers transformers.",
        ) from error
    if model.tokenizer is None or model.unet.device.type == "meta":
        lack = "tokenizer" if model.tokenizer is None else "weights: it is on the meta device"
        raise ModelError(f"this {model.base} has no {lack}.", hint="Load it whole first.")
    ours = model.family.parts_of(model)
    library: Any = diffusers
    language: Any = transformers
    theirs: dict[str, Any] = {}
    with torch.device("meta"):
        theirs["unet"] = library.UNet2DConditionModel(
            **diffusers_config.of_unet(model.unet.config),
            sample_size=_sample_size(model),
        )
        theirs["vae"] = library.AutoencoderKL(
            **diffusers_config.of_autoencoder(model.autoencoder.config), sample_size=model.size
        )
        for name in model.family.texts:
            encoder = model.layer(model.family.parts[name].path, ClipTextEncoder)
            config = language.CLIPTextConfig(**diffusers_config.of_text_encoder(encoder.config))
            is_first = name == model.family.texts[0]
            theirs[name] = (
                language.CLIPTextModel(config)
                if is_first
                else language.CLIPTextModelWithProjection(config)
            )
    for name, (part, keys) in ours.items():
        _give(theirs[name], published(part, keys))
    theirs["scheduler"] = library.DDIMScheduler(
        **diffusers_config.of_schedule(model.sampler.schedule)
    )
    theirs["tokenizer"] = language.CLIPTokenizer(**_vocabulary(model.tokenizer))
    if isinstance(text := model.layer("text_encoder"), TextEncoderPair):
        theirs["tokenizer_2"] = language.CLIPTokenizer(
            **_vocabulary(model.tokenizer) | {"pad_token": _padding(model.tokenizer, text)}
        )
        return library.StableDiffusionXLPipeline(
            **theirs,
            force_zeros_for_empty_prompt=model.is_silent_when_empty,
            add_watermarker=False,
        )
    return library.StableDiffusionPipeline(
        **theirs, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )


def _sample_size(model: LatentDiffusion) -> int | tuple[int, int]:
    width, height = (side // model.autoencoder.config.reduction for side in model.sides)
    return width if width == height else (height, width)


def _share(ours: nn.Module, theirs: nn.Module, keys: KeyMap) -> None:
    tensors = tensors_of(theirs)
    if any(tensor.is_meta for tensor in tensors.values()):
        raise ModelError(
            f"the {type(theirs).__name__} of this pipeline is offloaded: its weights are away.",
            hint="Load the pipeline without offloading.",
        )
    device = next(iter(tensors.values())).device
    try:
        load(ours, tensors, keys, device=device)
    except MisfitError as error:
        error.add_note("If the pipeline wears a LoRA or an IP-Adapter, unload it there first.")
        raise


def _give(theirs: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    wanted = theirs.state_dict().keys()
    # Since 5.6, text encoders of transformers lack the prefix of published files.
    renamed = {
        key if key in wanted else key.removeprefix("text_model."): tensor
        for key, tensor in tensors.items()
    }
    theirs.load_state_dict(renamed, assign=True)
    for layer in theirs.modules():
        for name, buffer in layer._buffers.items():
            if buffer is not None and buffer.is_meta:  # the position ids
                layer._buffers[name] = torch.arange(buffer.shape[-1], device="cpu").expand(
                    buffer.shape
                )
    theirs.eval()


def _config(part: Any) -> dict[str, Any]:
    if hasattr(part.config, "to_dict"):  # of transformers
        return part.config.to_dict() | {"architectures": [type(part).__name__]}
    return dict(part.config) | {"_class_name": type(part).__name__}


def _tokenizer(theirs: Any, length: int) -> ClipTokenizer:
    with TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return ClipTokenizer.load(Path(folder), length)


def _padding(ours: ClipTokenizer, text: TextEncoderPair) -> str:
    return str(ours._model.id_to_token(text.padding))


def _vocabulary(ours: ClipTokenizer) -> dict[str, Any]:
    model = json.loads(ours._model.to_str())["model"]
    return {
        "vocab": model["vocab"],
        "merges": [tuple(pair) for pair in model["merges"]],
        "model_max_length": ours.length,
    }
