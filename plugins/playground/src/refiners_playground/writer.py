"""The writer: a small Llama that describes scenes which the playground can draw."""

from pathlib import Path
from typing import Final

import torch

from refiners_core import Source
from refiners_core.models.decoder import LanguageModel, build_decoder, load_decoder

BASE: Final = "playground-writer"
FOLDER: Final = Path(__file__).parent / "weights" / "writer"
"""The folder of the writer, as language models are published."""


def build(
    source: Source | None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> LanguageModel:
    """Builds the writer and loads the weights of `source`, if given.

    Args:
        source: The files, `weights` among them; the others are beside it.
        device: The device of the weights; the CPU by default.
        dtype: The type of the weights; by default float32, as a CPU gains nothing from less.
    """
    if source is None:
        return build_decoder(FOLDER, base=BASE)
    model = load_decoder(
        source.files["weights"].parent,
        base=BASE,
        dtype=dtype or torch.float32,
        device=device or "cpu",
    )
    return model.eval().requires_grad_(False)
