"""Tries a recipe with a few small steps: it trains, its file loads by name, and a picture is made.

Nothing is put into a package.
"""

import argparse
import json
import time
from importlib import import_module
from pathlib import Path

import msgspec
import refiners
import torch
from refiners_train import load_config, train
from result import entry, places, results
from run import RUNS

from refiners_core import Adapter, Source

SMALL = {"count": 64, "prior": 32}
"""The numbers of examples."""


def main() -> None:
    """Trains, loads the result into a fresh model, and generates with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--full", action="store_true", help="all examples, and the whole batch")
    options = parser.parse_args()
    config = load_config(options.recipe)
    replace = msgspec.structs.replace
    size = config.train.batch if options.full else options.batch
    cut = {} if options.full else {k: v for k, v in SMALL.items() if k in config.data.options}
    config = replace(
        config,
        output=str(RUNS / "check" / options.recipe.stem),
        data=replace(config.data, options={**config.data.options, **cut}),
        train=replace(config.train, steps=options.steps, batch=size, warm_up=2),
        log=replace(config.log, every=1),
    )
    begin, marks = time.monotonic(), list[float]()
    folder = train(
        config,
        device=options.device,
        fresh=True,
        progress=False,
        callback=lambda step, loop: marks.append(time.monotonic()),
    )
    end = time.monotonic()
    losses = [json.loads(line)["loss"] for line in (folder / "log.jsonl").open() if "loss" in line]
    assert all(loss == loss and loss < 100 for loss in losses), losses
    name = config.adapter.name
    model = refiners.load_model("playground", device=options.device)
    module, _, function = config.data.source.partition(":")
    source = getattr(import_module(module), function)(**config.data.options)
    example = source.example(0, 0)
    adapter = trained(name, folder).inject(model)
    value = example.conditions.get("", dict(example.conditions)) if example.conditions else None
    images = model.generate(
        example.text, conditions={adapter: value}, steps=2, seed=0, output="tensor", progress=False
    )
    assert torch.isfinite(images).all()
    print(
        json.dumps(
            {
                "recipe": options.recipe.stem,
                "first loss": round(losses[0], 4),
                "last loss": round(losses[-1], 4),
                "seconds before": round(marks[0] - begin, 1),
                "seconds a step": round((marks[-1] - marks[0]) / max(1, len(marks) - 1), 3),
                "seconds after": round(time.monotonic() - end, 1),
            }
        )
    )


def trained(name: str, folder: Path) -> Adapter:
    """Returns an adapter as its manifest describes it, with files that are in no package yet.

    Args:
        name: The name of the adapter.
        folder: The folder of the training.
    """
    spec, variant = entry(name)
    module, _, attribute = spec["factory"].partition(":")
    source = Source({**places(name), **results(folder)}, settings=variant.get("settings", {}))
    return getattr(import_module(module), attribute)(name=name, weights=lambda _: source)


if __name__ == "__main__":
    main()
