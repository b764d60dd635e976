"""A short adapter of each known family, written with public names, keeps the contract."""

from collections.abc import Callable
from typing import Any

import brushnet
import control_lora
import controlnet
import controlnext
import distilled
import face_id
import few_steps
import freeu
import instant_id
import instruct
import ip_adapter
import language_model
import layer_diffuse
import lora
import motion
import multi_diffusion
import perturbed_attention
import photo_maker
import projected_guidance
import pytest
import regional
import self_attention_guidance
import style_aligned
import t2i_adapter
import t_gate
import text_encoder
import textual_inversion
import torch

from refiners_core import Adapter, Chain
from refiners_core.testing import LAWS, AdapterCase

PICTURE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(4))
MASK = torch.ones(1, 1, 32, 32)


def logits(model: Chain, conditions: object) -> torch.Tensor:
    return model(torch.arange(10).view(2, 5))


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
    return AdapterCase(make, model=language_model.decoder, run=logits, is_switched=False)


CASES = {
    "LoRA": case(lora.LowRank),
    "LoHa": case(lambda: lora.LowRank(lora.LohaChange)),
    "LoKr": case(lambda: lora.LowRank(lora.LokrChange)),
    "DoRA": case(lambda: lora.LowRank(lora.DoraChange)),
    "ControlNet": case(controlnet.ControlNet, PICTURE),
    "Control-LoRA": case(control_lora.ControlLora, PICTURE),
    "T2I-Adapter": case(t2i_adapter.T2iAdapter, PICTURE),
    "IP-Adapter": case(ip_adapter.ImagePrompt, PICTURE),
    "FaceID": case(face_id.FaceId, PICTURE),
    "InstantID": case(instant_id.InstantId, {"face": PICTURE, "keypoints": PICTURE}),
    "few steps": case(few_steps.FewSteps),
    "StyleAligned": case(style_aligned.StyleAligned),
    "FreeU": case(freeu.FreeU),
    "PAG": case(perturbed_attention.PerturbedAttention),
    "SAG": case(self_attention_guidance.SelfAttentionGuidance),
    "MultiDiffusion": case(multi_diffusion.MultiDiffusion),
    "LCM": case(distilled.Distilled),
    "textual inversion": case(lambda: textual_inversion.TextualInversion("red")),
    "more tokens": case(text_encoder.Longer),
    "T-GATE": case(t_gate.TGate),
    "APG": case(projected_guidance.ProjectedGuidance),
    "PhotoMaker": AdapterCase(photo_maker.PhotoMaker, condition=PICTURE, run=of_steps(1)),
    "IP-Adapter-Instruct": case(instruct.Instruct, {"image": PICTURE, "instruction": "a cat"}),
    "regional prompts": case(regional.RegionalPrompts, {"a cat": MASK}),
    "AnimateDiff": case(motion.Motion),
    "ControlNeXt": case(controlnext.ControlNext, PICTURE),
    "BrushNet": case(brushnet.BrushNet, PICTURE),
    "LayerDiffuse": AdapterCase(layer_diffuse.LayerDiffuse, condition=PICTURE, run=decoded),
    "LoRA of a language model": of_language(language_model.LanguageLora),
    "prefix": of_language(language_model.Prefix),
    "IA3": of_language(language_model.Ia3),
    "bottleneck": of_language(language_model.Bottleneck),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("family", CASES)
def test_every_family_keeps_the_contract(family, law):
    law(CASES[family])
