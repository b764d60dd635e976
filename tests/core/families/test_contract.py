"""Every row of the table "What the core must carry": a short adapter on public names that keeps
the contract."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from refiners_core import Adapter, Chain
from refiners_core.testing import LAWS, AdapterCase

from . import attention, control, image_prompt, input, language, low_rank, sampling, skip, text

PICTURE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(4))
LATENTS = torch.cat([PICTURE, PICTURE.mean(1, keepdim=True)], dim=1)


def spoken(model: Chain, conditions: object) -> torch.Tensor:
    return model(torch.arange(10).view(2, 5))


def case(make: Callable[[], Adapter], condition: Any = None) -> AdapterCase:
    return AdapterCase(make, condition=condition)


def of_language(make: Callable[[], Adapter]) -> AdapterCase:
    return AdapterCase(make, model=language.decoder, run=spoken, is_switched=False)


CASES = {
    "LoRA": case(low_rank.LowRank),
    "LoHa": case(lambda: low_rank.LowRank(low_rank.LohaChange)),
    "LoKr": case(lambda: low_rank.LowRank(low_rank.LokrChange)),
    "DoRA": case(lambda: low_rank.LowRank(low_rank.DoraChange)),
    "ControlNet": case(control.ControlNet, PICTURE),
    "Control-LoRA": case(control.ControlLora, PICTURE),
    "T2I-Adapter": case(control.T2iAdapter, PICTURE),
    "IP-Adapter": case(image_prompt.ImagePrompt, PICTURE),
    "FaceID": case(image_prompt.FaceId, PICTURE),
    "InstantID": case(image_prompt.InstantId, {"face": PICTURE, "keypoints": PICTURE}),
    "StyleAligned": case(attention.StyleAligned),
    "reference-only": case(attention.Reference, LATENTS),
    "FreeU": case(skip.FreeU),
    "PAG": case(sampling.PerturbedAttention),
    "SAG": case(sampling.SelfAttentionGuidance),
    "MultiDiffusion": case(sampling.MultiDiffusion),
    "LCM": case(sampling.Distilled),
    "textual inversion": case(lambda: text.TextualInversion("red")),
    "ELLA": case(text.Ella, "a cat"),
    "more tokens": case(text.Longer),
    "IC-Light": case(input.Relight, PICTURE),
    "AnimateDiff": case(input.Motion),
    "LoRA of a language model": of_language(language.LanguageLora),
    "prefix": of_language(language.Prefix),
    "IA3": of_language(language.Ia3),
    "bottleneck": of_language(language.Bottleneck),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("family", CASES)
def test_every_family_keeps_the_contract(family, law):
    law(CASES[family])
