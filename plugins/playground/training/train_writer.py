"""Trains the writer to describe what a request wishes for: about ten minutes on one core."""

import json
from random import Random

import torch
from loop import Recipe, train
from refiners_playground.writer_effect import grammatical, held_out_requests, true_to, written
from run import arguments
from torch import nn
from write_writer_tokenizer import FOLDER
from writer_lesson import Lesson

from refiners_core.models.decoder import (
    Decoder,
    DecoderConfig,
    GenerationDefaults,
    LanguageModel,
    TextTokenizer,
    decoder_keys,
)
from refiners_core.weights import save

MEASURED = 128


def build_writer() -> LanguageModel:
    """Builds the writer in float32, with random weights."""
    config = DecoderConfig.from_json(json.loads((FOLDER / "config.json").read_text("utf-8")))
    decoder = Decoder(config)
    nn.init.normal_(decoder.layer("embed", nn.Embedding).weight, std=0.05)
    for name, weight in decoder.named_parameters():
        if name.endswith(("to_out.weight", "contract.weight")):
            nn.init.zeros_(weight)
    return LanguageModel(
        decoder, TextTokenizer.load(FOLDER), defaults=GenerationDefaults(config.ends)
    )


def main() -> None:
    """Trains, measures with held-out requests, writes fp16 weights."""
    options = arguments(__doc__ or "", steps=1000, batch=64, measure_every=250)
    torch.manual_seed(0)
    model = build_writer()
    assert model.tokenizer is not None, "the tokenizer is written first"
    lesson = Lesson(model.tokenizer, batch=options.batch)
    requests = held_out_requests(MEASURED)

    def loss_of(step: int, random: Random) -> torch.Tensor:
        return lesson.loss(model.decoder, random)

    def measure() -> dict[str, float]:
        answers = written(model, requests)
        chats = written(model, requests, is_chat=True)
        return {
            "grammatical": grammatical(answers + chats),
            "true": true_to(requests * 2, answers + chats),
        }

    recipe = Recipe(muon=1e-2, adam=3e-3, decay=0.995)
    train("writer", model.decoder, recipe, loss_of, measure, options)
    save(
        model.decoder, FOLDER / "model.safetensors", decoder_keys(model.config), dtype=torch.float16
    )


if __name__ == "__main__":
    main()
