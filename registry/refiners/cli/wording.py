"""Puts hints that were written for Python into the words of the shell."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

OPTIONS: Final[Mapping[str, str]] = {
    "prompt": "PROMPT",
    "negative_prompt": "--negative",
    "steps": "--steps",
    "guidance": "--guidance",
    "guidance_rescale": "--guidance-rescale",
    "count": "--count",
    "seed": "--seed",
    "size": "--size",
    "sampler": "--sampler",
    "image": "--image",
    "mask": "--mask",
    "strength": "--strength",
    "offload": "--offload",
    "conditions": "--adapter",
    "output": "--out",
    "progress": "--json",
    "device": "--device",
    "dtype": "--dtype",
    "offline": "--offline",
    "lock": "--lock",
}
"""The option of the shell for each argument of `generate` and `load_model`."""
_VARIABLES: Final = {"offline": "REFINERS_OFFLINE", "lock": "REFINERS_LOCK"}
"""What sets the same in commands that have no such option."""
_VALUE: Final = r"\"[^\"]*\"|'[^']*'|\([^()]*\)|-?\d[\w.]*|True|False|None"
_ARGUMENT: Final = re.compile(rf"(?<![\w.\"'-])({'|'.join(OPTIONS)})=({_VALUE})?(?![\w{{=])")
_PHRASES: Final = (
    (re.compile(r"conditions=\{adapter: None\}"), "--adapter NAME:0"),
    (
        re.compile(r"conditions=\{adapter: Condition\([^()]*scale=([\d.]+)[^()]*\)\}"),
        r"--adapter NAME=PICTURE:\1",
    ),
    (re.compile(r"conditions=\{adapter: \{[^{}]*\}\}"), "--adapter NAME=INPUT=PICTURE,..."),
    (re.compile(r"conditions=\{[^{}]*\}( with what load_adapter returned)?"),
     "--adapter NAME=PICTURE"),
    (re.compile(r"Condition\((?:value, )?scale=([\d.]+)\)"), r"--adapter NAME=PICTURE:\1"),
    (re.compile(r"(?:refiners\.)?load_adapter\([\"']([^\"']+)[\"'][^()]*(?:\([^()]*\))?\)"),
     r"--adapter \1"),
    (re.compile(r"(?:refiners\.)?load_model\([\"']([^\"']+)[\"']\)"), r"--model \1"),
    (re.compile(r"\(width, height\)"), "WIDTHxHEIGHT"),
)  # fmt: skip


def shell_words(text: str, options: Collection[str]) -> str:
    """Returns a hint or a message as somebody at a shell would type it.

    Args:
        text: Written for Python.
        options: The options that the command has, such as `--steps`.

    Example:
        >>> shell_words("Try size=(512, 512).", ["--size"])
        'Try --size 512x512.'
    """
    for pattern, words in _PHRASES:
        option = words.split()[0] if words.startswith("--") else ""
        if not option or option in options:
            text = pattern.sub(words, text)

    def option_of(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        option = OPTIONS[name]
        if option not in options:
            variable = _VARIABLES.get(name)
            on = "" if value == "False" else "1" if value == "True" else value or "..."
            return f"{variable}={on}" if variable else match[0]
        if value == "False":
            return f"no {option}"
        return option if value in (None, "True") else f"{option} {_typed(value)}"

    return _ARGUMENT.sub(option_of, text)


def _typed(value: str) -> str:
    if value.startswith("("):
        return "x".join(part.strip() for part in value.strip("()").split(",") if part.strip())
    text = value.strip("\"'")
    return f'"{text}"' if " " in text else text
