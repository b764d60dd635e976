"""Whole pipelines of diffusers with official topologies, tiny, with random weights."""

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

TEXT = {
    "vocab_size": 514,
    "max_position_embeddings": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "bos_token_id": 512,
    "eos_token_id": 513,
    "projection_dim": 24,
}


def tokenizer(padding):
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*signs, *(sign + "</w>" for sign in signs), "<|startoftext|>", "<|endoftext|>"]
    vocab = {word: i for i, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=32, pad_token=padding)


NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def sd15_pipeline():
    """Stable Diffusion 1.5 in miniature."""
    torch.manual_seed(0)
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(16, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=2,
            norm_num_groups=8,
        ),
        text_encoder=CLIPTextModel(CLIPTextConfig(**TEXT, hidden_size=16)),
        tokenizer=tokenizer("<|endoftext|>"),
        unet=UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(16, 32, 32, 32),
            attention_head_dim=4,
            norm_num_groups=8,
            cross_attention_dim=16,
        ),
        scheduler=DDIMScheduler(**NOISE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _readied(pipe)


def sdxl_pipeline():
    """Stable Diffusion XL in miniature."""
    torch.manual_seed(0)
    pipe = StableDiffusionXLPipeline(
        vae=AutoencoderKL(
            block_out_channels=(16, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=8,
            scaling_factor=0.13025,
        ),
        text_encoder=CLIPTextModel(CLIPTextConfig(**TEXT, hidden_size=16)),
        text_encoder_2=CLIPTextModelWithProjection(
            CLIPTextConfig(**TEXT, hidden_size=24, hidden_act="gelu")
        ),
        tokenizer=tokenizer("<|endoftext|>"),
        tokenizer_2=tokenizer("!"),
        unet=UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(16, 32, 32),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 1, 2),
            attention_head_dim=(1, 2, 4),
            use_linear_projection=True,
            norm_num_groups=8,
            cross_attention_dim=40,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24 + 6 * 8,
        ),
        scheduler=DDIMScheduler(**NOISE),
        add_watermarker=False,
    )
    return _readied(pipe)


def _readied(pipe):
    pipe.set_progress_bar_config(disable=True)
    # The predictions of an untrained network hardly depend on its conditioning.
    for part in (pipe.unet, pipe.text_encoder, getattr(pipe, "text_encoder_2", None)):
        for name, weight in part.named_parameters() if part is not None else ():
            if name.endswith("weight") and weight.ndim > 1:
                weight.data *= 1.5
    return pipe
