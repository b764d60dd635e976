"""The measured effects of the writer and of its adapters."""

import time
from collections.abc import Iterator
from statistics import median

import refiners
import torch
from figure import Figure
from refiners_playground.effect import Settings
from refiners_playground.writer_effect import (
    ADAPTERS,
    COLOUR,
    drawn_effect,
    grammatical,
    having,
    held_out_requests,
    true_to,
    written,
)

from refiners_core.models.decoder import GenerationDefaults, LanguageModel
from refiners_core.models.diffusion import LatentDiffusion

REQUESTS = 256
TOKENS, RUNS = 64, 9
"""The length of a text whose time is measured, and the number of such texts."""


def writer_figures(playground: LatentDiffusion, count: int, settings: Settings) -> Iterator[Figure]:
    """Yields how often the writer and its adapters do as they learnt, and how fast it writes."""
    model: LanguageModel = refiners.load_model("playground-writer")  # pyright: ignore
    requests = held_out_requests(REQUESTS)
    bare = written(model, requests)
    yield Figure("writer: grammatical", grammatical(bare), REQUESTS, 0.95)
    yield Figure("writer: true to the request", true_to(requests, bare), REQUESTS, 0.95)
    answers = written(model, requests, is_chat=True)
    yield Figure("writer in a chat: grammatical", grammatical(answers), REQUESTS, 0.95)
    yield Figure(
        "writer in a chat: true to the request", true_to(requests, answers), REQUESTS, 0.95
    )
    shares = drawn_effect(playground, model, count, settings)
    for name in ("shape", "colour", "background"):
        yield Figure(f"writer, then playground: {name}", shares[name], count, 0.9)
    for name, style in ADAPTERS.items():
        with refiners.load_adapter(name).on(model):
            styled = written(model, requests)
        yield Figure(
            f"{name}: its property without", having(bare, style.is_met), REQUESTS, most=0.15
        )
        yield Figure(f"{name}: its property with", having(styled, style.is_met), REQUESTS, 0.9)
        if name != f"writer-{COLOUR}":
            yield Figure(f"{name}: true to the request", true_to(requests, styled), REQUESTS)
    yield Figure(f"writer: seconds for {TOKENS} tokens", seconds(model), RUNS, most=0.3)


def seconds(model: LanguageModel) -> float:
    """Returns the median processor time of a text of 64 tokens on one thread, in seconds."""
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
    return median(times)
