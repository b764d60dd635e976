"""A short adapter of each known family, written with public names, keeps the contract."""

from collections.abc import Callable
from typing import Any

import brushnet
import controlnext
import distilled
import few_steps
import instruct
import language_model
import layer_diffuse
import motion
import photo_maker
import pytest
import t_gate
import text_encoder
import torch

from refiners_core import Adapter
from refiners_core.testing import LAWS, AdapterCase

PICTURE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(4))


def scores(model: Any, conditions: Any) -> torch.Tensor:
    """Writes after rows of unequal length, which need padding and a cache."""
    rows = [torch.arange(5), torch.arange(7)]
    results = model.generate(rows, conditions=conditions, max_new_tokens=3, output="scores")
    return torch.cat([result.log_probabilities for result in results])


def decoded(model: Any, conditions: Any) -> torch.Tensor:
    options = {"steps": 1, "strength": 1, "seed": 0, "output": "tensor", "progress": False}
    return model.generate("a cat", conditions=conditions, image=PICTURE, **options)


def case(make: Callable[[], Adapter], condition: Any = None) -> AdapterCase:
    return AdapterCase(make, condition=condition)


def of_steps(steps: int) -> Callable[[Any, Any], torch.Tensor]:
    """Returns a run of so many steps, with a prompt that has a trigger."""

    def run(model: Any, conditions: Any) -> torch.Tensor:
        options = {"steps": steps, "seed": 7, "output": "latents", "progress": False}
        return model.generate("a cat@", conditions=conditions, **options)

    return run


def of_language(make: Callable[[], Adapter]) -> AdapterCase:
    return AdapterCase(make, model=language_model.language_model, run=scores)


CASES = {
    "few steps": case(few_steps.FewSteps),
    "LCM": case(distilled.Distilled),
    "more tokens": case(text_encoder.Longer),
    "T-GATE": case(t_gate.TGate),
    "PhotoMaker": AdapterCase(photo_maker.PhotoMaker, condition=PICTURE, run=of_steps(1)),
    "IP-Adapter-Instruct": case(instruct.Instruct, {"image": PICTURE, "instruction": "a cat"}),
    "AnimateDiff": case(motion.Motion),
    "ControlNeXt": case(controlnext.ControlNext, PICTURE),
    "BrushNet": case(brushnet.BrushNet, PICTURE),
    "LayerDiffuse": AdapterCase(layer_diffuse.LayerDiffuse, condition=PICTURE, run=decoded),
    "LoRA of a language model": of_language(language_model.LanguageLora),
    "prefix": of_language(language_model.Prefix),
    "prompt of a language model": of_language(language_model.PromptTuning),
    "IA3": of_language(language_model.Ia3),
    "bottleneck": of_language(language_model.Bottleneck),
}
"""The families that no package brings: packages are held to the contract by their own tests."""


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("family", CASES)
def test_every_family_keeps_the_contract(family, law):
    law(CASES[family])
