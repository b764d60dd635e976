"""A tiny Stable Diffusion 1.5, which generates in milliseconds."""

import pytest
import torch
from tokenizers import pre_tokenizers

from refiners_core.models import sd15
from refiners_core.models.clip import ClipTextConfig
from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.samplers import ScheduleConfig
from refiners_core.models.unet import UNetConfig
from refiners_core.models.vae import AutoencoderConfig

START, END = "<|startoftext|>", "<|endoftext|>"


@pytest.fixture(scope="session")
def vocabulary():
    """A byte-level vocabulary without merges: every byte is a token."""
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*signs, *(sign + "</w>" for sign in signs), START, END]
    return {word: i for i, word in enumerate(words)}


@pytest.fixture(scope="session")
def build_tiny(vocabulary):
    """A function that builds a model with random weights, the same at every call."""

    def build(**changes):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return sd15.build(
                **{
                    "unet": UNetConfig(
                        channels=(8, 16),
                        layers=(1, 1),
                        depths=(1, 0),
                        heads=(2, 2),
                        text_width=8,
                        groups=4,
                    ),
                    "text_encoder": ClipTextConfig(
                        vocabulary=514,
                        max_tokens=16,
                        width=8,
                        inner_width=16,
                        layers=2,
                        heads=2,
                        end_token=513,
                    ),
                    "autoencoder": AutoencoderConfig(
                        channels=(8, 8, 8),
                        blocks=1,
                        groups=4,
                        has_attention=False,
                        scaling_factor=1.0,
                    ),
                    "schedule": ScheduleConfig(prediction="v", spacing="trailing"),
                    "tokenizer": ClipTokenizer(vocabulary, [], length=16),
                    "size": 32,
                    "base": "tiny",
                    **changes,
                }
            )

    return build


@pytest.fixture
def model(build_tiny):
    return build_tiny()
