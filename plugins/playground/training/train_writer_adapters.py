"""Trains three adapters of the writer: two to four minutes each on one core.

A LoRA writes in an archaic style, a prefix in one colour only, and a bottleneck in another order.
"""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

import torch
from loop import Recipe, train
from refiners_playground.description import Description, Thing
from refiners_playground.writer_effect import (
    ADAPTERS,
    WriterStyle,
    having,
    held_out_requests,
    written,
)
from run import arguments
from train_writer import build_writer
from write_writer_tokenizer import FOLDER
from writer_adapter import Bottleneck, Lora, Prefix, Published
from writer_lesson import CHATS, CONVERSATIONS, Lesson

from refiners_core.models.decoder import LanguageModel, decoder_keys
from refiners_core.weights import load

MEASURED = 64
BEGUN = Description((Thing("circle", "red"), Thing("square", "blue")), "white", relation="and")
"""The description whose words a prefix begins with."""


@dataclass(frozen=True)
class Course:
    """An adapter, its learning rates, and how many times the usual steps it needs."""

    adapter: type[Published]
    recipe: Recipe
    times: int = 1
    chats: float = CHATS
    conversations: float = CONVERSATIONS


COURSES: Mapping[str, Course] = {
    "writer-archaic": Course(Lora, Recipe(muon=2e-2, adam=3e-3, warm=20, decay=0.98)),
    "writer-green": Course(Prefix, Recipe(muon=1e-2, adam=0.1, warm=20, decay=0.98)),
    "writer-ground-first": Course(
        Bottleneck,
        Recipe(muon=3e-2, adam=1e-2, warm=20, hold=0.1, decay=0.98),
        times=3,
        # Texts without a chat are harder: a request may seem to be the beginning of the answer.
        chats=0.25,
        conversations=0.1,
    ),
}


def teach(model: LanguageModel, name: str, style: WriterStyle, options: Namespace) -> None:
    """Trains an adapter, measures it with held-out requests, and writes its folder."""
    course = COURSES[name]
    assert model.tokenizer is not None, "the tokenizer is written first"
    lesson = Lesson(
        model.tokenizer,
        style.rewrite,
        options.batch,
        stories=0.0,
        chats=course.chats,
        conversations=course.conversations,
    )
    requests = held_out_requests(MEASURED)
    torch.manual_seed(0)
    adapter = course.adapter(name=name)
    adapter.begin(model, model.tokenizer.tokens(str(style.rewrite(BEGUN))))

    def loss_of(step: int, random: Random) -> torch.Tensor:
        return lesson.loss(model.decoder, random)

    def measure() -> dict[str, float]:
        return {name: having(written(model, requests), style.is_met)}

    steps = Namespace(**{**vars(options), "steps": options.steps * course.times})
    train(name.replace("-", "_"), adapter.own_layers, course.recipe, loss_of, measure, steps)
    adapter.write(model, FOLDER.with_name(name.replace("-", "_")))
    adapter.eject()


def main() -> None:
    """Trains all adapters, one after another, on the writer that is shipped."""
    options = arguments(__doc__ or "", steps=400, batch=64, measure_every=100)
    model = build_writer()
    load(
        model.decoder, FOLDER / "model.safetensors", decoder_keys(model.config), dtype=torch.float32
    )
    model.eval().requires_grad_(False)
    for name, style in ADAPTERS.items():
        teach(model, name, style, options)


if __name__ == "__main__":
    main()
