"""Wrong uses and their error messages, word for word.

The messages are in `messages.toml`. To see a changed message, empty its entry and run the test: the
failure shows it.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import refiners
import torch

from refiners_core import Condition
from refiners_core.errors import RefinersError
from refiners_core.testing import tiny_model

from .published import IDS, contents, language_model, layer, save, worn

MESSAGES: Mapping[str, str] = tomllib.loads(
    (Path(__file__).parent / "messages.toml").read_text("utf-8")
)
Q = layer(0, "self_attn.q_proj", "vera_lambda_b")


def load(folder: Path, method: str, tensors: Any = None, model: Any = None, **fields: Any) -> None:
    """Loads a random adapter after changes of its tensors and of its configuration."""
    known, config = contents(method)
    path = save(folder / "style", known | (tensors or {}), config | fields)
    refiners.load_adapter(str(path), language_model() if model is None else model)


def renamed(old: str, new: str) -> dict[str, torch.Tensor]:
    return {key.replace(old, new): x for key, x in contents("vera")[0].items()}


def score(folder: Path, count: int, scale: Any = 1.0) -> None:
    model = language_model("gpt2")
    adapter = worn("prompt-tuning", folder / "style", model)
    model.score([torch.arange(count)] * 2, conditions={adapter: Condition(scale=scale)})


def merge(folder: Path) -> None:
    model = language_model()
    worn("prompt-tuning", folder, model).merge()


USES: Mapping[str, Callable[[Path], Any]] = {
    "a prefix of a model with more layers": lambda f: load(f, "prefix-tuning", num_layers=24),
    "a prefix of a model with other heads": lambda f: load(
        f, "prefix-tuning", {"prompt_embeddings": torch.ones(3, 64)}
    ),
    "a prompt of a wider model": lambda f: load(
        f, "prompt-tuning", {"prompt_embeddings": torch.ones(3, 64)}
    ),
    "a prefix on Stable Diffusion": lambda f: load(f, "prefix-tuning", model=tiny_model()),
    "a prompt for two transformers": lambda f: load(
        f, "prompt-tuning", num_transformer_submodules=2
    ),
    "a prompt for several tasks": lambda f: load(
        f, "prompt-tuning", peft_type="MULTITASK_PROMPT_TUNING"
    ),
    "half a prompt": lambda f: load(f, "prompt-tuning", num_virtual_tokens=6),
    "a VeRA of a model with more layers": lambda f: load(
        f, "vera", renamed("layers.1.", "layers.30.")
    ),
    "a VeRA of another family": lambda f: load(f, "vera", renamed("self_attn.q_proj", "attn.qkv")),
    "a VeRA of a wider model": lambda f: load(f, "vera", {Q: torch.ones(64)}),
    "a trained head": lambda f: load(f, "vera", modules_to_save=["lm_head"]),
    "trained biases": lambda f: load(f, "fourier-ft", bias="all"),
    "a field of a later PEFT": lambda f: load(f, "ln-tuning", use_later_things=True),
    "frequencies of another seed": lambda f: load(f, "fourier-ft", random_loc_seed=None),
    "frequencies of another number": lambda f: load(f, "fourier-ft", n_frequency=1000),
    "half a scale for a prompt": lambda f: score(f, 5, 0.5),
    "a prompt in one layer": lambda f: score(f, 5, {"decoder.attend.0": 1.0}),
    "a prompt and a text that is too long": lambda f: score(f, 38),
    "a merged prompt": merge,
    "one hundred new tokens after a prefix": lambda f: (
        worn("prefix-tuning", f, model := language_model("gpt2"))
        and model.generate(IDS[0], max_new_tokens=100, output="tokens")
    ),
}


@pytest.mark.parametrize("use", USES)
def test_a_wrong_use_is_one_short_message(use: str, tmp_path: Path):
    with pytest.raises(RefinersError) as error:
        USES[use](tmp_path)
    message = re.sub(r"-tuning-\d+", "-tuning", " ".join(str(error.value).split()))
    assert message == MESSAGES.get(use), message
    assert len(message) <= 320


def test_every_message_has_a_use():
    assert sorted(MESSAGES) == sorted(USES)
