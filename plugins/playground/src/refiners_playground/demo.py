"""What `refiners demo` shows: a model steered by adapters, and left as it was."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from refiners_core import Adapter
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.picture import to_images
from torch import Tensor

from refiners_playground.edge import edges
from refiners_playground.effect import Settings, control_effect, image_effect, prompt_effect
from refiners_playground.scenes import Item, Scene, draw
from refiners_playground.sheet import contact_sheet

PROMPT = "a red heart on a white background"
LINES = Scene((Item("heart", "red", radius=0.44, x=0.3, y=-0.25, angle=0.35),), "white")
"""The scene whose edges steer the ControlNet: the prompt's heart, smaller and moved aside."""
LOOK = Scene((Item("circle", "yellow"),), "blue")
"""The scene that prompts the IP-Adapter."""
SETTINGS = Settings(seed=7)
COUNT = 16
"""How many held-out scenes each figure of the demo is measured on."""


class Registry(Protocol):
    """The two doors that the demo goes through, like any user."""

    load_model: Callable[..., Any]
    load_adapter: Callable[..., Any]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    value: str
    note: str


def run(registry: Registry, out: Path) -> list[Row]:
    """Writes a contact sheet, and beside it the two pictures that steer; returns what was measured.

    Args:
        registry: Where the model and its adapters come from.
        out: The PNG file to write; `-edges.png` and `-picture.png` are put beside it.
    """
    model: LatentDiffusion = registry.load_model("playground")
    lines, look = edges(draw([LINES])).expand(-1, 3, -1, -1), draw([LOOK])
    plain = _picture(model, {})
    control: Adapter = registry.load_adapter("controlnet-canny", model)
    prompter: Adapter = registry.load_adapter("ip-adapter", model)
    columns = [
        ("prompt alone", PROMPT, [plain]),
        ("with ControlNet", "and its edge map", [_picture(model, {control: lines}), lines[0]]),
        ("with IP-Adapter", "and its picture", [_picture(model, {prompter: look}), look[0]]),
    ]
    both = _picture(model, {control: lines, prompter: look})
    columns.append(("with both", "edge map and picture", [both, lines[0], look[0]]))
    effects = _effects(model, control, prompter)
    exact = [_ejected(model, plain, (control, prompter)), _ejected(model, plain, (prompter, control))]
    columns.append(("after ejecting both", "bit for bit the first", [_picture(model, {})]))

    out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(columns).save(out)
    for name, pixels in (("edges", lines), ("picture", look)):
        to_images(pixels)[0].save(out.with_name(f"{out.stem}-{name}.png"))
    return [*effects, *exact]


def _picture(model: LatentDiffusion, conditions: dict[Adapter, Tensor]) -> Tensor:
    unsaid: dict[Adapter, Any] = {adapter: None for adapter in model.adapters}
    return model.generate(
        PROMPT,
        conditions=unsaid | conditions,
        steps=SETTINGS.steps,
        guidance=SETTINGS.guidance,
        seed=SETTINGS.seed,
        output="tensor",
        progress=False,
    )[0]


def _effects(model: LatentDiffusion, control: Adapter, prompter: Adapter) -> list[Row]:
    said = prompt_effect(model, COUNT, SETTINGS)
    lines = [control_effect(model, control, COUNT, SETTINGS, scale) for scale in (0.0, 1.0)]
    looks = [image_effect(model, prompter, COUNT, SETTINGS, scale) for scale in (0.0, 1.0)]
    note = f"scale 0 -> 1, {COUNT} scenes"
    return [
        *(
            Row(f"prompt: {name}", f"{said[name]:.2f}", f"share right of {COUNT} held-out prompts")
            for name in ("shape", "colour", "background")
        ),
        Row("ControlNet: edge F1", f"{lines[0]:.2f} -> {lines[1]:.2f}", note),
        *(
            Row(
                f"IP-Adapter: {name}",
                f"{looks[0][name]:.2f} -> {looks[1][name]:.2f}",
                f"{note}, empty prompt",
            )
            for name in ("colour", "background")
        ),
    ]


def _ejected(model: LatentDiffusion, plain: Tensor, order: tuple[Adapter, ...]) -> Row:
    """Takes adapters off in an order, compares with the picture from before, and puts them on again.

    Only the first order puts them on again; after the second the model is bare.
    """
    for adapter in order:
        if not adapter.is_worn:
            adapter.inject(model)
    for adapter in order:
        adapter.eject()
    is_equal = torch.equal(plain, _picture(model, {}))
    names = ", then ".join(adapter.key for adapter in order)
    return Row(f"eject {names}", "bit-equal" if is_equal else "DIFFERS", "picture as before the adapters")
