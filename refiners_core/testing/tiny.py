"""Complete models, small enough to generate in milliseconds."""

import string
from dataclasses import replace
from typing import Any, Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from refiners_core.models import sd15, sdxl
from refiners_core.models.clip import ClipTextConfig
from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.decoder import (
    ChatTemplate,
    Decoder,
    DecoderConfig,
    LanguageModel,
    TextTokenizer,
)
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.samplers import ScheduleConfig
from refiners_core.models.t5 import T5Tokenizer
from refiners_core.models.unet import UNetConfig
from refiners_core.models.vae import AutoencoderConfig

_START, _END = "<|startoftext|>", "<|endoftext|>"
_SIGNS: Final = sorted(pre_tokenizers.ByteLevel.alphabet())
_WORDS: Final = [*_SIGNS, *(f"{sign}</w>" for sign in _SIGNS), _START, _END]
_UNET: Final = UNetConfig(
    channels=(8, 16), layers=(1, 1), depths=(1, 1), heads=(2, 2), text_width=8, groups=4
)
_TEXT_ENCODER: Final = ClipTextConfig(
    vocabulary=len(_WORDS),
    max_tokens=16,
    width=8,
    inner_width=16,
    layers=2,
    heads=2,
    end_token=len(_WORDS) - 1,
)
_POOLED = 8
_TIME_IDS = 6
_WAVES = 4


def tiny_model(**changes: Any) -> LatentDiffusion:
    """Builds a tiny Stable Diffusion 1.5 with random weights from a fixed seed.

    The model has all kinds of places that the slots of the family name: two levels with attention,
    images of 32 x 32 pixels, latents of 8 x 8, texts of 16 tokens with 8 features, and a tokenizer
    of single characters.

    Args:
        changes: Arguments of `sd15.build` to replace, such as `base`, `facts` or `unet`.

    Example:
        >>> tiny_model().generate("a cat", steps=2, output="tensor", progress=False).shape
        torch.Size([1, 3, 32, 32])
    """
    parts: dict[str, Any] = {"unet": _UNET, "text_encoder": _TEXT_ENCODER}
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return sd15.build(**{**parts, **_shared(), **changes}).eval()


def tiny_sdxl(**changes: Any) -> LatentDiffusion:
    """Builds a tiny Stable Diffusion XL with random weights from a fixed seed.

    The model has the features of the family: a first level without attention, transformers of
    several blocks between linear projections, two text encoders (8 features each), pooled text and
    time ids. Images have 32 x 32 pixels, latents 8 x 8.

    Args:
        changes: Arguments of `sdxl.build` to replace, such as `base`, `facts` or `unet`.

    Example:
        >>> tiny_sdxl().generate("a cat", steps=2, output="tensor", progress=False).shape
        torch.Size([1, 3, 32, 32])
    """
    unet = replace(
        _UNET,
        channels=(8, 8, 16),
        layers=(1, 1, 1),
        depths=(0, 1, 2),
        mid_depth=2,
        heads=(1, 1, 2),
        text_width=16,
        has_linear_projection=True,
        added_cond_width=_POOLED + _TIME_IDS * _WAVES,
        time_id_channels=_WAVES,
    )
    parts: dict[str, Any] = {
        "unet": unet,
        "text_encoder": _TEXT_ENCODER,
        "text_encoder_2": replace(_TEXT_ENCODER, activation="gelu", projection_width=_POOLED),
    }
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return sdxl.build(**{**parts, **_shared(), **changes}).eval()


def tiny_t5_tokenizer() -> T5Tokenizer:
    """Builds a tokenizer of T5's kind, of 101 single characters and three special tokens.

    Example:
        >>> tiny_t5_tokenizer().tokens("a cat")[-1]
        1
    """
    special = ["<pad>", "</s>", "<unk>"]
    signs = sorted({*string.printable, "\u2581"})
    pieces = [(sign, 0.0) for sign in special] + [(sign, -3.0) for sign in signs]
    model = Tokenizer(models.Unigram(pieces, unk_id=2))
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    model.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    model.add_special_tokens(special[:2])
    return T5Tokenizer(model)


def tiny_language_model(**changes: Any) -> LanguageModel:
    """Builds a tiny language model with random weights from a fixed seed.

    It has the features of Llama: grouped heads, rotated queries and keys, gated networks. Its
    tokens are the 256 bytes, and two that begin and end a text.

    Args:
        changes: Fields of its `DecoderConfig` to replace, such as `is_tied`.

    Example:
        >>> len(tiny_language_model().generate("a cat", max_new_tokens=3, output="tokens"))
        3
    """
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {sign: i for i, sign in enumerate([*signs, _START, _END])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A", special_tokens=[(_START, vocabulary[_START])]
    )
    tokenizer.add_special_tokens([_START, _END])
    config = DecoderConfig(
        family="llama",
        vocabulary=len(vocabulary),
        width=16,
        inner_width=24,
        layers=2,
        heads=4,
        kv_heads=2,
        head_width=4,
        places=512,
        begin=vocabulary[_START],
        ends=(vocabulary[_END],),
    )
    chat = ChatTemplate(
        "{{ bos_token }}{% for message in messages %}<{{ message.role }}> {{ message.content }}\n"
        "{% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}"
    )
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        decoder = Decoder(replace(config, **changes)).eval()
        for weight in decoder.parameters():  # large enough for texts to vary
            weight.data = torch.randn(weight.shape) * 0.3
    return LanguageModel(decoder, TextTokenizer(tokenizer, chat, {"bos_token": _START}))


def _shared() -> dict[str, Any]:
    return {
        "autoencoder": AutoencoderConfig(
            channels=(8, 8, 8), blocks=1, groups=4, scaling_factor=1.0
        ),
        "schedule": ScheduleConfig(prediction="v", spacing="trailing"),
        "tokenizer": ClipTokenizer({word: i for i, word in enumerate(_WORDS)}, [], length=16),
        "size": 32,
    }
