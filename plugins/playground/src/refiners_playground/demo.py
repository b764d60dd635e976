"""The demo of `refiners demo`: adapters steer a model and leave no trace when they are ejected."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from refiners_core import Adapter, Condition
from refiners_core.measure import Figure, Measure, Settings
from refiners_core.models.decoder import LanguageModel
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.picture import to_images
from refiners_playground.contact_sheet import Column, contact_sheet
from refiners_playground.edge import edges
from refiners_playground.measure.aligned import END, GROUP, SHIFT, Aligned
from refiners_playground.measure.control import F1, controlnet
from refiners_playground.measure.image import ImagePrompt
from refiners_playground.measure.prompt import PlainPrompts
from refiners_playground.measure.sampling import GUIDANCE, STEPS, generated
from refiners_playground.measure.style import INKED, Ink
from refiners_playground.measure.writer import Drawn, Writing
from refiners_playground.scene import Item, Scene, draw

PROMPT = "a heart"
LINES = Scene((Item("heart", "red", radius=0.5, x=0.3, y=-0.25, angle=0.2),), "white")
"""The scene whose edges are the ControlNet's condition: the heart, smaller and moved aside."""
LOOK = Scene((Item("circle", "yellow"),), "blue")
"""The scene that is the IP-Adapter's condition."""
ALIGNED = ("heart", "star", "cross", "ring")
"""The shapes that are drawn in one style."""
INKED_PROMPT = "a red cross on a cyan background"
"""The prompt that is drawn in ink."""
DESCRIBED = ("a red star", "a heart", "a yellow ring", "a blue ground", "something green")
"""The requests to the writer, whose descriptions are drawn."""
SETTINGS = Settings(seed=7)
DESCRIPTIONS = 64
"""The number of held-out requests to the writer."""
COUNT = 8
"""The number of held-out scenes behind each figure of the demo."""
COMPARED = 12
"""The number of pictures that are compared with the first of their batch of four."""


class Registry(Protocol):
    """The two public functions that the demo loads with."""

    load_model: Callable[..., Any]
    load_adapter: Callable[..., Any]


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    name: str
    value: str
    note: str


def run(registry: Registry, out: Path) -> list[Row]:
    """Writes a contact sheet and the two control pictures; returns the measured figures.

    Args:
        registry: Loads the model and its adapters.
        out: The PNG file to write; `-edges.png` and `-picture.png` are written beside it.
    """
    with _one_thread(), tqdm(total=10, desc="demo") as bar:
        model: LatentDiffusion = registry.load_model("playground")
        lines, look = edges(draw([LINES])).expand(-1, 3, -1, -1), draw([LOOK])
        plain = _picture(model, {})
        control: Adapter = registry.load_adapter("controlnet-canny", model)
        prompter: Adapter = registry.load_adapter("ip-adapter", model)
        aligned: Adapter = registry.load_adapter("style-aligned", model, shift=SHIFT)
        ink: Adapter = registry.load_adapter("lora-ink", model)
        steered = _steered_columns(model, plain, control, prompter, lines, look)
        styled = _styled_columns(model, aligned, ink)
        writer: LanguageModel = registry.load_model("playground-writer")
        texts = writer.generate(list(DESCRIBED))
        described = _described_columns(model, texts)
        bar.update()
        rows: list[Row] = []
        for figures in (
            _prompt_rows(model),
            _control_rows(model, control),
            _image_rows(model, prompter),
            _aligned_rows(model, aligned),
            _ink_rows(model, ink),
            _writer_rows(model, writer),
        ):
            rows += figures
            bar.update()
        adapters = (control, prompter, aligned, ink)
        for order in (adapters, adapters[::-1]):
            rows.append(_ejected(model, plain, order))
            bar.update()
        after = ("after ejecting all", "bit for bit the first", [_picture(model, {})])
        out.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet([*steered, after], styled, described).save(out)
        for name, pixels in (("edges", lines), ("picture", look)):
            to_images(pixels)[0].save(out.with_name(f"{out.stem}-{name}.png"))
        bar.update()
    return rows


def _steered_columns(
    model: LatentDiffusion,
    plain: Tensor,
    control: Adapter,
    prompter: Adapter,
    lines: Tensor,
    look: Tensor,
) -> list[Column]:
    """Returns one prompt alone, then steered by edges, by a picture, and by both."""
    drawn, prompted = _picture(model, {control: lines}), _picture(model, {prompter: look})
    both = _picture(model, {control: lines, prompter: look})
    return [
        ("prompt alone", f'"{PROMPT}"', [plain]),
        ("with ControlNet", "and its edge map", [drawn, lines[0]]),
        ("with IP-Adapter", "and its picture", [prompted, look[0]]),
        ("with both", "edge map and picture", [both, lines[0], look[0]]),
    ]


def _styled_columns(model: LatentDiffusion, aligned: Adapter, ink: Adapter) -> list[Column]:
    """Returns four prompts in one style and one in ink, each above its picture without adapter."""
    prompts = [f"a large {shape}" for shape in ALIGNED]
    together, apart = (
        generated(model, prompts, SETTINGS, adapter, end=END, batch=GROUP)
        for adapter in (aligned, None)
    )
    columns = [
        (f"StyleAligned: {shape}", "below: without", [together[i], apart[i]])
        for i, shape in enumerate(ALIGNED)
    ]
    pictures = [
        _picture(model, conditions, INKED_PROMPT) for conditions in ({ink: Condition()}, {})
    ]
    return [*columns, ("LoRA: drawn in ink", "below: without", pictures)]


def _described_columns(model: LatentDiffusion, texts: Sequence[str]) -> list[Column]:
    """Returns the pictures of the writer's descriptions, each under the request."""
    return [
        (f"Describe {request}.", text.removeprefix("Picture "), [_picture(model, {}, text)])
        for request, text in zip(DESCRIBED, texts, strict=True)
    ]


@contextmanager
def _one_thread() -> Generator[None]:
    """Computes on one thread: in networks this small, several threads mostly wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _picture(
    model: LatentDiffusion, conditions: Mapping[Adapter, Tensor | Condition], prompt: str = PROMPT
) -> Tensor:
    idle: dict[Adapter, Any] = dict.fromkeys(model.adapters)
    return model.generate(
        prompt,
        conditions=idle | dict(conditions),
        steps=SETTINGS.steps or STEPS,
        guidance=GUIDANCE,
        seed=SETTINGS.seed,
        output="tensor",
        progress=False,
    )[0]


def _prompt_rows(model: LatentDiffusion) -> Iterator[Row]:
    shares = PlainPrompts().values(model, None, COUNT, SETTINGS)
    for name, share in shares.items():
        yield Row(f"prompt: {name}", f"{share:.2f}", f"share of {COUNT} held-out prompts")


def _control_rows(model: LatentDiffusion, control: Adapter) -> Iterator[Row]:
    off, on = _values(controlnet(), model, control)
    yield Row("ControlNet: edge F1", f"{off[F1]:.2f} -> {on[F1]:.2f}", f"off -> on, {COUNT} scenes")


def _image_rows(model: LatentDiffusion, prompter: Adapter) -> Iterator[Row]:
    measure = ImagePrompt("ip-adapter", Figure("colour"), Figure("background"))
    off, on = _values(measure, model, prompter)
    for name in on:
        note = f"off -> on, {COUNT} scenes, empty prompt"
        yield Row(f"IP-Adapter: {name}", f"{off[name]:.2f} -> {on[name]:.2f}", note)


def _aligned_rows(model: LatentDiffusion, aligned: Adapter) -> Iterator[Row]:
    off, on = _values(Aligned(), model, aligned, COMPARED)
    for title, name in (("background", "background of the first"), ("shape", "prompted shape")):
        note = f"off -> on, {COMPARED} pictures beside a first"
        yield Row(f"StyleAligned: {title}", f"{off[name]:.2f} -> {on[name]:.2f}", note)


def _ink_rows(model: LatentDiffusion, ink: Adapter) -> Iterator[Row]:
    off, on = _values(Ink(), model, ink)
    for name, title in ((INKED, INKED), ("colour", "colour as named")):
        note = f"off -> on, {COUNT} held-out prompts"
        yield Row(f"LoRA: {title}", f"{off[name]:.2f} -> {on[name]:.2f}", note)


def _writer_rows(model: LatentDiffusion, writer: LanguageModel) -> Iterator[Row]:
    shares = Writing(is_chat_too=False).values(writer, None, DESCRIPTIONS)
    for name, share in shares.items():
        yield Row(f"writer: {name}", f"{share:.2f}", f"share of {DESCRIPTIONS} held-out requests")
    for name, share in Drawn(model).values(writer, None, COUNT, SETTINGS).items():
        yield Row(f"writer, drawn: {name}", f"{share:.2f}", f"share of {COUNT} descriptions")


def _values(
    measure: Measure, model: LatentDiffusion, adapter: Adapter, count: int = COUNT
) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the figures of a measure with a worn adapter left out, and with it."""
    return (
        measure.values(model, None, count, SETTINGS),
        measure.values(model, adapter, count, SETTINGS),
    )


def _ejected(model: LatentDiffusion, plain: Tensor, order: tuple[Adapter, ...]) -> Row:
    """Injects the adapters that are not worn, ejects all in an order, and compares the picture."""
    for adapter in order:
        if not adapter.is_worn:
            adapter.inject(model)
    for adapter in order:
        adapter.eject()
    is_equal = torch.equal(plain, _picture(model, {}))
    names = ", ".join(adapter.key for adapter in order)
    return Row(
        f"eject {names}", "bit-equal" if is_equal else "DIFFERS", "picture as before the adapters"
    )
