"""Pipelines of diffusers that wear image prompts, beside ours, for the same generations."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import refiners
import torch

from refiners_core.models.clip import clip_pixels

STEPS, GUIDANCE, PROMPT = 5, 4.0, "a red circle on blue"
UNNORMED = "ip-adapter-faceid-portrait-unnorm"
PICTURES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(7))
FACES = torch.nn.functional.normalize(
    torch.randn(3, 512, generator=torch.Generator().manual_seed(8)), dim=1
)
LEFT = torch.zeros(1, 1, 32, 48)
LEFT[..., :20] = 1


class Peer:
    """A pipeline of diffusers that wears adapters."""

    def __init__(self, stage: SimpleNamespace, *names: str) -> None:
        parts = {**stage.pipe.components, "unet": deepcopy(stage.pipe.unet)}
        parts["image_encoder"] = stage.encoder
        options = {"requires_safety_checker": False} if stage.base == "sd15" else {}
        self.pipe, self.names, self.stage = type(stage.pipe)(**parts, **options), names, stage
        self.pipe.set_progress_bar_config(disable=True)
        self.pipe.load_ip_adapter(
            [deepcopy(stage.weights[name]) for name in names], "", [None] * len(names), None
        )
        self.layers = self.pipe.unet.encoder_hid_proj.image_projection_layers

    @torch.no_grad()
    def features(self, name: str, pictures: Any, faces: Any, is_shown: bool = True) -> Any:
        """Returns the features of pictures and of faces that its projection reads."""
        pixels = clip_pixels(list(pictures), 32)
        if not is_shown:
            pixels, faces = torch.zeros_like(pixels), torch.zeros_like(faces)
        output = self.stage.encoder(pixels, output_hidden_states=True)
        patches = output.hidden_states[-2]
        if "faceid" in name:
            return faces[None] * (20 if name == UNNORMED else 1), patches[None]
        if name == "ip-adapter":
            embeds = output.image_embeds
            return (embeds if is_shown else torch.zeros_like(embeds))[None], None
        return patches[None], None

    def latents(self, *shown: Any, negative: Any = None, **options: Any) -> Any:
        """Generates with the numbers of the pictures and faces of each adapter."""
        embeds = []
        for name, numbers, layer in zip(self.names, shown, self.layers, strict=True):
            numbers = list(numbers)
            cond, patches = self.features(name, PICTURES[numbers], FACES[numbers])
            others = numbers if negative is None else list(negative)
            uncond, blank = self.features(
                name, PICTURES[others], FACES[others], negative is not None
            )
            if name == UNNORMED:
                cond, uncond = cond[:, :, None], uncond[:, :, None]
            embeds.append(torch.cat([uncond, cond]))
            if "faceid-plus" in name:
                layer.clip_embeds = torch.cat([blank, patches])
                layer.shortcut = name.endswith("v2")
        return self.generated(embeds, **options)

    def generated(self, embeds: Any, **options: Any) -> Any:
        """Generates with the features of each adapter, of which the negative ones come first."""
        made = self.pipe(
            PROMPT,
            height=32,
            width=48,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            latents=noise(self.stage),
            output_type="latent",
            ip_adapter_image_embeds=embeds,
            **options,
        )
        return made.images


def noise(stage: SimpleNamespace) -> torch.Tensor:
    side = (8, 12) if stage.base == "sd15" else (16, 24)
    return torch.randn(1, 4, *side, generator=torch.Generator().manual_seed(1))


def value(name: str, numbers: Any, negative: Any = None) -> dict[str, Any]:
    """Returns the condition of the pictures and faces with some numbers."""
    length = 20 if name == UNNORMED else 1  # the adapters' own business is to normalise it
    faces = {"face": [[FACES[i] * length for i in numbers]]}
    if "faceid-plus" in name:
        faces["picture"] = [PICTURES[i] for i in numbers]
    shown = faces if "faceid" in name else {"picture": [[PICTURES[i] for i in numbers]]}
    if negative is not None:
        shown["negative"] = [PICTURES[i] for i in negative]
    return shown


def ours(stage: SimpleNamespace, conditions: Any, steps: int = STEPS) -> torch.Tensor:
    return stage.model.generate(
        PROMPT,
        conditions=conditions,
        steps=steps,
        guidance=GUIDANCE,
        latents=noise(stage),
        output="latents",
        progress=False,
    )


@contextmanager
def worn(stage: SimpleNamespace, *names: str) -> Iterator[list[Any]]:
    try:
        yield [refiners.load_adapter(name, stage.model) for name in names]
    finally:
        stage.model.eject_all()
