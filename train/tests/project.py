"""A training file in a folder, of a LoRA on the playground."""

from pathlib import Path
from typing import Any

import tomlkit


def project(folder: Path, **changes: Any) -> Path:
    """Writes a training file of a few steps and returns its path; the output is `run` beside it.

    Args:
        folder: The folder.
        changes: Keys of [train] to replace; whole tables by their names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = ("base", "adapter", "data", "log", "result")
    table: dict[str, Any] = {
        "output": str(folder / "run"),
        "base": {"model": "playground"},
        "adapter": {"name": "lora", "options": {"rank": 2}},
        "data": {
            "source": "refiners_playground.lesson:inked",
            "options": {"count": 10},
            "text-dropped": 0.3,
        },
        "train": {"steps": 2, "batch": 4, "average": 0.9, "checkpoint-every": 1},
        "log": {"every": 1},
        "result": {"dtype": "float32"},
    }
    for name in tables:
        table[name] = {**table[name], **changes.pop(name, {})}
    table["train"] |= changes
    path = folder / "train.toml"
    path.write_text(tomlkit.dumps(table))
    return path
