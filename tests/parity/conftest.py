"""Peers with random weights, saved in the layouts in which such networks are published."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from .pipelines import sd15_pipeline, sdxl_pipeline


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def publish(tmp_path: Path) -> Callable[[nn.Module], tuple[Path, dict[str, Any]]]:
    """Saves a peer's network; returns its file of weights and its configuration."""

    def save(peer: Any) -> tuple[Path, dict[str, Any]]:
        peer.save_pretrained(tmp_path)
        (weights,) = tmp_path.glob("*.safetensors")
        return weights, json.loads((tmp_path / "config.json").read_text())

    return save


@pytest.fixture(scope="session")
def sd15_folder(tmp_path_factory) -> tuple[Any, Path]:
    """A tiny pipeline of diffusers, and the folder that it is published as."""
    return _published(sd15_pipeline(), tmp_path_factory.mktemp("sd15"))


@pytest.fixture(scope="session")
def sdxl_folder(tmp_path_factory) -> tuple[Any, Path]:
    """A tiny pipeline of diffusers, and the folder that it is published as."""
    return _published(sdxl_pipeline(), tmp_path_factory.mktemp("sdxl"))


def _published(pipe: Any, folder: Path) -> tuple[Any, Path]:
    pipe.save_pretrained(folder)
    return pipe, folder


@pytest.fixture(scope="session")
def build_pipeline() -> Callable[..., Any]:
    """Builds diffusers' pipeline of the SD 1.5 family, tiny, with random weights."""
    return pipeline


def pipeline(unet: Mapping[str, Any] | None = None, **schedule: Any) -> Any:
    """Returns a pipeline whose network predicts enough for differences to show."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from tokenizers import pre_tokenizers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*signs, *(sign + "</w>" for sign in signs), "<|startoftext|>", "<|endoftext|>"]
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(16, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=8,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=514,
                max_position_embeddings=32,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=3,
                num_attention_heads=4,
                bos_token_id=512,
                eos_token_id=513,
            )
        ),
        tokenizer=CLIPTokenizer(
            vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=32
        ),
        unet=UNet2DConditionModel(
            **{
                "sample_size": 16,
                "block_out_channels": (16, 32, 32, 32),
                "layers_per_block": 2,
                "attention_head_dim": 4,
                "cross_attention_dim": 32,
                "norm_num_groups": 8,
                **(unet or {}),
            }
        ),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            **schedule,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    # The predictions of an untrained network hardly depend on its conditioning.
    for part in (pipe.unet, pipe.text_encoder):
        for name, weight in part.named_parameters():
            if name.endswith("weight") and weight.ndim > 1:
                weight.data *= 1.5
    return pipe
