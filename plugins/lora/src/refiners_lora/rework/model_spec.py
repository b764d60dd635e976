"""The metadata of files: ModelSpec 1.0.1 of Stability AI, and the sources with their hashes."""

import json
from collections.abc import Mapping, Sequence
from typing import Final

from refiners_lora.rework.source import Origin

ARCHITECTURES: Final[Mapping[str, str]] = {
    "sd15": "stable-diffusion-v1",
    "sdxl": "stable-diffusion-xl-v1-base",
}
"""The names of bases in ModelSpec; others keep theirs."""
SOURCES: Final = "refiners.sources"
"""The key under which the sources are listed, as JSON: name, sha256 and strength of each."""
COMMAND: Final = "refiners.command"
"""The key of the command that made the file, without names of files."""


def notes(base: str, title: str, command: str, origins: Sequence[Origin]) -> dict[str, str]:
    """Returns the metadata of a file. It has no date, so the same inputs give the same bytes.

    Args:
        base: The base of the model.
        title: The title.
        command: The command that makes the file.
        origins: The files or models of which it is made.
    """
    sources = [
        {"name": origin.name, "sha256": origin.sha256, "strength": origin.strength}
        for origin in origins
    ]
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{ARCHITECTURES.get(base, base)}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": title,
        "modelspec.merged_from": ", ".join(origin.name for origin in origins),
        COMMAND: command,
        SOURCES: json.dumps(sources, sort_keys=True),
    }
