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
_BARE: Final = re.compile(rf"\b([Ll]eave )({'|'.join(OPTIONS)})( out)|\b()(\w+_\w+)()\b")
_PHRASES: Final = (
    (r"conditions=\{adapter: None\}", "{adapter} NAME:0"),
    (
        r"conditions=\{adapter: Condition\([^()]*scale=([\d.]+)[^()]*\)\}",
        r"{adapter} NAME=PICTURE:\1",
    ),
    (r"conditions=\{adapter: \{[^{}]*\}\}", "{adapter} NAME=INPUT=PICTURE,INPUT=PICTURE"),
    (r"conditions=\{[^{}]*\}( with what load_adapter returned)?", "{adapter} NAME=PICTURE"),
    (r"Condition\((?:value, )?scale=([\d.]+)\)", r"{adapter} NAME=PICTURE:\1"),
    (r"; Condition\(value, mask=\.\.\.\) limits an adapter", ""),
    (
        r"(?:refiners\.)?load_adapter\([\"']([^\"']+)[\"'][^()]*file=[\"']([^\"']+)[\"']\)",
        r"{adapter} \1=\2",
    ),
    (
        r"(?:refiners\.)?load_adapter\([\"']([^\"']+)[\"'][^()]*(?:\([^()]*\))?\)",
        r"{adapter} \1",
    ),
    (r"Eject ([\w-]+) first", r"Leave {adapter} \1 out"),
    (r"Put it on first: adapter\.inject\(model\)", "Write {adapter} NAME"),
    (r"(?:refiners\.)?load_model\([\"']([^\"']+)[\"']\)", r"{model} \1"),
    (r"print\(sorted\(model\.slots\)\)", "refiners tree MODEL shows its places"),
    (
        r"refiners_core\.weights\.(rewrite_pickle\(.*, sha256=)\.\.\.\)",
        "python -c \"from refiners_core.weights import rewrite_pickle; \\1'SHA256')\"",
    ),
    (r"\(width, height\)", "WIDTHxHEIGHT"),
)  # fmt: skip
"""What Python says in more than an argument, and the shell in other words."""


def shell_words(text: str, options: Collection[str]) -> str:
    """Returns a hint or a message as somebody at a shell would type it.

    Args:
        text: Written for Python.
        options: The options that the command has, such as `--steps`.

    Example:
        >>> shell_words("Try size=(512, 512).", ["--size"])
        'Try --size 512x512.'
    """
    adapter = next((name for name in ("--adapter", "--with") if name in options), None)
    model = "--model" if "--model" in options else "refiners generate PROMPT --model"
    for pattern, words in _PHRASES:
        if adapter is None and "{adapter}" in words:
            continue
        spoken = words.replace("{adapter}", adapter or "").replace("{model}", model)
        text = re.sub(pattern, spoken, text)

    def option_of(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        option = OPTIONS[name]
        if option not in options:
            return _variable(name, value) or match[0]
        if value == "False":
            return f"no {option}"
        return option if value in (None, "True") else f"{option} {_typed(value)}"

    def bare(match: re.Match[str]) -> str:
        before, name, after = (part for part in match.groups() if part is not None)
        option = OPTIONS.get(name)
        return f"{before}{option}{after}" if option in options else match[0]

    return _BARE.sub(bare, _ARGUMENT.sub(option_of, text))


def _variable(name: str, value: str | None) -> str:
    """Returns the variable that sets an argument in commands that have no option for it."""
    variable = _VARIABLES.get(name)
    if variable is None:
        return ""
    if value == "False":
        return f"{variable} unset"
    return f"{variable}={'1' if value == 'True' else value or '...'}"


def _typed(value: str) -> str:
    if value.startswith("("):
        return "x".join(part.strip() for part in value.strip("()").split(",") if part.strip())
    text = value.strip("\"'")
    return f'"{text}"' if " " in text else text
