"""Pipelines of diffusers that somebody has loaded already, and back; tensors are shared."""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from torch import Tensor, nn

from refiners_core.errors import ModelError
from refiners_core.models import sd15, sdxl
from refiners_core.models.clip import CLIP_TEXT_KEYS, ClipTextConfig, ClipTextEncoder
from refiners_core.models.clip.pair import TextEncoderPair
from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.formats.live_pipeline import check_part, tensors_of, tiles, unwrapped
from refiners_core.models.pipeline_index import check_index, padding_of
from refiners_core.models.samplers import sampler_from_json
from refiners_core.models.unet import UNET_KEYS, UNetConfig
from refiners_core.models.vae import AUTOENCODER_KEYS, AutoencoderConfig, Tiling
from refiners_core.weights import KeyMap, MisfitError, load, published

_NEEDED: Final = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_NETWORKS: Final = ("unet", "vae", "text_encoder", "text_encoder_2")


def is_pipeline(what: object) -> bool:
    """Whether something looks like a pipeline of diffusers; nothing of it is imported."""
    return isinstance(getattr(what, "components", None), Mapping)


def from_pipeline(pipe: Any) -> LatentDiffusion:
    """Returns a model that has the very tensors of a pipeline of diffusers, none of them copied.

    What is trained in one is trained in the other. The pipeline stays as it is: adapters of
    ours go on the model alone.

    Args:
        pipe: A `StableDiffusionPipeline` or `StableDiffusionXLPipeline`, or one with their parts.

    Raises:
        ModelError: It lacks a part, a part is of another family, is offloaded, or has a state that
            changes what it computes (FreeU, hooks, other attention processors, quantised layers).
        MisfitError: It wears a LoRA.
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
    unet = UNetConfig.from_json(_config(parts["unet"]))
    if unet.text_width == 1024:
        raise ModelError(
            f"this {type(pipe).__name__} is Stable Diffusion 2.",
            hint="Known here are Stable Diffusion 1.5 and XL.",
        )
    vae = AutoencoderConfig.from_json(_config(parts["vae"]))
    text = _text_config(parts["text_encoder"])
    schedule = sampler_from_json(_config(parts["scheduler"]))
    tokenizer = _tokenizer(parts["tokenizer"], text.max_tokens)
    is_pair = parts.get("text_encoder_2") is not None
    family: Any = sdxl if is_pair else sd15
    size = family.size_of(_config(parts["unet"]), vae)
    given: dict[str, Any] = {"tokenizer": tokenizer, "size": size, "device": "meta"}
    given |= {"unet": unet, "autoencoder": vae, "schedule": schedule, "text_encoder": text}
    if is_pair:
        second = parts.get("tokenizer_2")
        given["text_encoder_2"] = _text_config(parts["text_encoder_2"])
        given["padding_2"] = padding_of(
            tokenizer, None if second is None else _tokenizer(second, text.max_tokens)
        )
        given["is_silent_when_empty"] = bool(pipe.config.get("force_zeros_for_empty_prompt", True))
    model: LatentDiffusion = family.build(**given)
    if tiles(parts["vae"]):
        model.autoencoder.tiling = Tiling()
    for name, part, keys in _parts_of(model):
        _share(part, parts[name], keys)
    return model


def to_diffusers(model: LatentDiffusion) -> Any:
    """Returns a pipeline of diffusers that has the very tensors of a model, none of them copied.

    It is the bare model: adapters that are worn stay behind, or are merged before. It samples with
    DDIM on the model's schedule.

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
    from refiners_core.models.formats import diffusers_config

    if model.tokenizer is None or model.unet.device.type == "meta":
        lacks = "tokenizer" if model.tokenizer is None else "weights: it is on the meta device"
        raise ModelError(f"this {model.base} has no {lacks}.", hint="Load it whole first.")
    text = model.text_encoder
    settings = {name: part for name, part, _ in _parts_of(model)}
    encoder, encoder_2 = settings["text_encoder"], settings.get("text_encoder_2")
    library: Any = diffusers
    language: Any = transformers
    made: dict[str, Any] = {}
    with torch.device("meta"):
        made["unet"] = library.UNet2DConditionModel(
            **diffusers_config.of_unet(model.unet.config),
            sample_size=_sample_size(model),
        )
        made["vae"] = library.AutoencoderKL(
            **diffusers_config.of_autoencoder(model.autoencoder.config), sample_size=model.size
        )
        made["text_encoder"] = language.CLIPTextModel(
            language.CLIPTextConfig(**diffusers_config.of_text_encoder(encoder.config))
        )
        if encoder_2 is not None:
            made["text_encoder_2"] = language.CLIPTextModelWithProjection(
                language.CLIPTextConfig(**diffusers_config.of_text_encoder(encoder_2.config))
            )
    for name, part, keys in _parts_of(model):
        _give(made[name], published(part, keys))
    made["scheduler"] = library.DDIMScheduler(
        **diffusers_config.of_schedule(model.sampler.schedule)
    )
    made["tokenizer"] = language.CLIPTokenizer(**_vocabulary(model.tokenizer))
    if isinstance(text, TextEncoderPair):
        made["tokenizer_2"] = language.CLIPTokenizer(
            **_vocabulary(model.tokenizer) | {"pad_token": _padding(model.tokenizer, text)}
        )
        return library.StableDiffusionXLPipeline(
            **made,
            force_zeros_for_empty_prompt=model.is_silent_when_empty,
            add_watermarker=False,
        )
    return library.StableDiffusionPipeline(
        **made, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )


def _sample_size(model: LatentDiffusion) -> int | tuple[int, int]:
    width, height = (side // model.autoencoder.config.reduction for side in model.sides)
    return width if width == height else (height, width)


def _parts_of(model: LatentDiffusion) -> list[tuple[str, Any, KeyMap]]:
    """Returns name and layout of each part that diffusers has, and ours."""
    parts: list[tuple[str, Any, KeyMap]] = [
        ("unet", model.unet, UNET_KEYS),
        ("vae", model.autoencoder, AUTOENCODER_KEYS),
    ]
    if not isinstance(model.text_encoder, TextEncoderPair):
        return [*parts, ("text_encoder", model.text_encoder, CLIP_TEXT_KEYS)]
    first, second = "clip_l.encoder", "clip_g.encoder"
    return [
        *parts,
        ("text_encoder", model.text_encoder.layer(first, ClipTextEncoder), CLIP_TEXT_KEYS),
        ("text_encoder_2", model.text_encoder.layer(second, ClipTextEncoder), CLIP_TEXT_KEYS),
    ]


def _share(ours: nn.Module, theirs: nn.Module, keys: KeyMap) -> None:
    tensors = tensors_of(theirs)
    if any(tensor.is_meta for tensor in tensors.values()):
        raise ModelError(
            f"the {type(theirs).__name__} of this pipeline is offloaded: its weights are away.",
            hint="Load the pipeline without offloading.",
        )
    where = next(iter(tensors.values())).device
    try:
        load(ours, tensors, keys, device=where)
    except MisfitError as error:
        error.add_note("If the pipeline wears a LoRA or an IP-Adapter, unload it there first.")
        raise


def _give(theirs: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    wanted = theirs.state_dict().keys()
    # Since 5.6 transformers has text encoders without the prefix that is published.
    named = {
        key if key in wanted else key.removeprefix("text_model."): tensor
        for key, tensor in tensors.items()
    }
    theirs.load_state_dict(named, assign=True)
    for layer in theirs.modules():
        for name, buffer in layer._buffers.items():
            if buffer is not None and buffer.is_meta:  # the numbers of the places of tokens
                layer._buffers[name] = torch.arange(buffer.shape[-1], device="cpu").expand(
                    buffer.shape
                )
    theirs.eval()


def _config(part: Any) -> dict[str, Any]:
    return dict(part.config) | {"_class_name": type(part).__name__}


def _text_config(theirs: Any) -> ClipTextConfig:
    said = theirs.config.to_dict() | {"architectures": [type(theirs).__name__]}
    return ClipTextConfig.from_json(said)


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
