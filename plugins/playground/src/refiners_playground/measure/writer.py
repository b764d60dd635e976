"""Measures of the writer and of its adapters: grammar, truth, what is drawn of it, and speed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from statistics import median
from typing import Any, Final

import torch

from refiners_core import Adapter, Source
from refiners_core.measure import Figure, Measure, Samples, Settings
from refiners_core.models.decoder import GenerationDefaults, LanguageModel
from refiners_core.models.diffusion import LatentDiffusion
from refiners_playground.caption import plain_caption
from refiners_playground.measure.sampling import generated, named_scenes, recognised
from refiners_playground.model import build
from refiners_playground.recogniser import WEIGHTS
from refiners_playground.writer import BASE
from refiners_playground.writer_effect import (
    ADAPTERS,
    COLOUR,
    grammatical,
    having,
    held_out_requests,
    true_to,
    written,
)

TOKENS, RUNS = 64, 64
"""The length of a text whose time is measured, and the number of such texts."""
PROPERTY: Final = "its property"
TRUE: Final = "true to the request"
GRAMMATICAL: Final = "grammatical"


class Writing(Measure):
    """Whether answers to held-out requests are grammatical, and state what is wished for.

    Args:
        is_chat_too: Whether requests are also made as the message of a conversation.
    """

    base = BASE
    summary = "held-out requests of many forms, as a text and in a chat"

    def __init__(self, is_chat_too: bool = True) -> None:
        self.kinds = {"": False, ", in a chat": True} if is_chat_too else {"": False}
        self.figures = [
            Figure(name + suffix, least=0.95)
            for suffix in self.kinds
            for name in (GRAMMATICAL, TRUE)
        ]

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        requests = held_out_requests(count, settings.seed + 1)
        outcomes: dict[str, Sequence[float]] = {}
        for suffix, is_chat in self.kinds.items():
            answers = written(model, requests, is_chat=is_chat)
            outcomes[GRAMMATICAL + suffix] = [grammatical([answer]) for answer in answers]
            pairs = zip(requests, answers, strict=True)
            outcomes[TRUE + suffix] = [true_to([request], [answer]) for request, answer in pairs]
        return Samples(outcomes, [request.text for request in requests])


class Drawn(Measure):
    """Whether pictures of the writer's descriptions show what was requested.

    Args:
        playground: The model that draws; by default the one of this package.
    """

    base = BASE
    summary = "held-out requests, described by the writer and drawn by the playground"
    files = (WEIGHTS,)
    figures = (
        Figure("shape", least=0.9),
        Figure("colour", least=0.9),
        Figure("background", least=0.9),
    )

    def __init__(self, playground: LatentDiffusion | None = None) -> None:
        self.playground = playground

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        scenes = named_scenes(count)
        texts = model.generate([plain_caption(scene) for scene in scenes])
        pixels = generated(self.playground or build_playground(), texts, settings)
        hits = recognised(pixels, scenes)
        return Samples({f.name: hits[f.name] for f in self.figures}, texts, pixels)


class Pace(Measure):
    """The processor time of a text of 64 tokens on one thread."""

    base = BASE
    summary = "texts of 64 tokens, one at a time on one thread"
    figures = (Figure("seconds for 64 tokens", is_share=False, most=0.3, statistic=median),)

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        endless = LanguageModel(model.decoder, model.tokenizer, defaults=GenerationDefaults())
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        times: list[float] = []
        try:
            for _ in range(RUNS):
                start = time.process_time()
                endless.generate("a red circle", max_new_tokens=TOKENS)
                times.append(time.process_time() - start)
        finally:
            torch.set_num_threads(threads)
        return Samples({self.figures[0].name: times})


class WriterStyleMeasure(Measure):
    """Whether every sentence of an answer has the property that an adapter learnt.

    Args:
        adapter: The name of the adapter.
    """

    base = BASE
    summary = "held-out requests"

    def __init__(self, adapter: str) -> None:
        self.adapter = adapter
        truth = () if adapter == f"writer-{COLOUR}" else (Figure(TRUE, loss=0.1),)
        self.figures = (
            Figure(PROPERTY, least=0.9, most_without=0.15, together=0.85),
            Figure(GRAMMATICAL),
            *truth,
        )

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        requests = held_out_requests(count, settings.seed + 1)
        used = {adapter, *settings.beside}
        skipped = {each: None for each in model.adapters if each not in used}
        answers = written(model, requests, skipped)
        is_met = ADAPTERS[self.adapter].is_met
        pairs = zip(requests, answers, strict=True)
        outcomes = {
            PROPERTY: [having([answer], is_met) for answer in answers],
            GRAMMATICAL: [grammatical([answer]) for answer in answers],
            TRUE: [true_to([request], [answer]) for request, answer in pairs],
        }
        return Samples(outcomes, [request.text for request in requests])


def archaic() -> WriterStyleMeasure:
    """Returns the measure of `writer-archaic`."""
    return WriterStyleMeasure("writer-archaic")


def green() -> WriterStyleMeasure:
    """Returns the measure of `writer-green`."""
    return WriterStyleMeasure(f"writer-{COLOUR}")


def ground_first() -> WriterStyleMeasure:
    """Returns the measure of `writer-ground-first`."""
    return WriterStyleMeasure("writer-ground-first")


@cache
def build_playground() -> LatentDiffusion:
    """Returns the playground from the files of this package."""
    folder = WEIGHTS.parent
    files = {
        "unet": folder / "unet.safetensors",
        "vae": folder / "vae.safetensors",
        "text-encoder": folder / "text_encoder.safetensors",
        "vocab": folder / "tokenizer" / "vocab.json",
        "merges": folder / "tokenizer" / "merges.txt",
    }
    return build(Source(files))
