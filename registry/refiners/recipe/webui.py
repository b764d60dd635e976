"""Reads the text with which AUTOMATIC1111's web interface and its forks describe a picture.

The prompt comes first, then a line `Negative prompt: ...`, then one line of settings, such as
`Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model hash: ..., Model: ...`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from refiners.recipe.form import AdapterRecord, ArgumentRecord, ModelRecord, Recipe

PROGRAM: Final = "webui"
_NEGATIVE: Final = "Negative prompt:"
_SETTING: Final = re.compile(r'([A-Za-z][\w /-]*): ("(?:[^"\\]|\\.)*"|[^,]*)(?:,|$)')
_EXTRA: Final = re.compile(r"<([a-z]\w*):([^:<>]+)(?::([-+.\d]+))?[^<>]*>")
_SUFFIX: Final = ".safetensors"


def from_parameters(text: str) -> Recipe:
    """Returns the recipe in a text of settings.

    Raises:
        ValueError: A setting has an impossible value.
    """
    *lines, last = text.strip().split("\n")
    settings = {match[1].strip(): match[2].strip('" ') for match in _SETTING.finditer(last)}
    if "Steps" not in settings:
        lines, settings = [*lines, last], {}
    starts = (i for i, line in enumerate(lines) if line.startswith(_NEGATIVE))
    start = next(starts, len(lines))
    prompt = "\n".join(lines[:start]).strip()
    negative = "\n".join(lines[start:]).removeprefix(_NEGATIVE).strip()
    prompt, adapters = without_extras(prompt)
    return Recipe(
        written_by=PROGRAM,
        model=_model(settings),
        adapters=tuple(adapters),
        arguments=msgspec.convert(
            {"prompt": prompt, "negative_prompt": negative, **_arguments(settings)},
            ArgumentRecord,
            strict=False,
        ),
        made_with={PROGRAM: settings["Version"]} if "Version" in settings else {},
    )


def without_extras(prompt: str) -> tuple[str, list[AdapterRecord]]:
    """Returns a prompt without its `<lora:name:0.8>`, and the adapters that these name."""
    adapters = {
        name: AdapterRecord(
            key=name,
            name=kind,
            file=f"{name.removesuffix(_SUFFIX)}{_SUFFIX}",
            scale=float(scale or 1),
        )
        for kind, name, scale in _EXTRA.findall(prompt)
    }
    return re.sub(r"[ \t]{2,}", " ", _EXTRA.sub("", prompt)).strip(), [*adapters.values()]


def _model(settings: Mapping[str, str]) -> ModelRecord:
    digest = settings.get("Model hash", "")
    name = f"{settings['Model']}{_SUFFIX}" if "Model" in settings else ""
    return ModelRecord(id=f"file:{name}" if name else "", files={name: digest} if digest else {})


def _arguments(settings: Mapping[str, str]) -> dict[str, Any]:
    keys = {"Steps": "steps", "CFG scale": "guidance", "Seed": "seed"}
    arguments: dict[str, Any] = {
        ours: settings[key] for key, ours in keys.items() if key in settings
    }
    if match := re.fullmatch(r"(\d{1,6})x(\d{1,6})", settings.get("Size", "")):
        arguments["size"] = [int(match[1]), int(match[2])]
    if "Denoising strength" in settings and "Hires upscale" not in settings:
        arguments["strength"] = settings["Denoising strength"]
    if sampler := settings.get("Sampler"):
        spacing = settings.get("Schedule type", "Automatic")
        arguments["sampler"] = sampler if spacing == "Automatic" else f"{sampler} {spacing}"
    return arguments
