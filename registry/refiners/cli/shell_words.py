"""Translates messages and hints from Python into the words of the shell."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Final

from refiners.host.shell import quoted

OPTIONS: Final[Mapping[str, str]] = {
    "prompt": "PROMPT",
    "negative_prompt": "--negative",
    "steps": "--steps",
    "timesteps": "--timesteps",
    "sigmas": "--sigmas",
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
    "max_new_tokens": "--max-tokens",
    "temperature": "--temperature",
    "top_k": "--top-k",
    "top_p": "--top-p",
    "min_p": "--min-p",
    "repetition_penalty": "--repetition-penalty",
    "stop": "--stop",
}
"""The option of the shell for each argument of `generate` and `load_model`."""
_VARIABLES: Final = {"offline": "REFINERS_OFFLINE", "lock": "REFINERS_LOCK"}
"""The variable for an argument, in commands without the option."""
_VALUE: Final = r"\"[^\"]*\"|'[^']*'|\([^()]*\)|\[[-\d., ]*\]|-?\d[\w.]*|True|False|None"
_BARE: Final = re.compile(rf"\b([Ll]eave )({'|'.join(OPTIONS)})( out)|\b()(\w+_\w+)()\b")


def _arguments(names: Collection[str]) -> re.Pattern[str]:
    """Returns the pattern of an argument in Python, with one of some names."""
    return re.compile(rf"(?<![\w.\"'-])({'|'.join(names)})=({_VALUE})?(?![\w{{=])")


def _pickle_command(match: re.Match[str]) -> str:
    """Returns the command that converts a pickle, in double quotes where these are safe."""
    code = f"from refiners_core.weights import rewrite_pickle; {match[1]}'SHA256')"
    is_safe = re.search(r"[\"$`\\!]", code) is None
    return f'python -c "{code}"' if is_safe else quoted("python", "-c", code)


def _condition_options(match: re.Match[str]) -> str:
    """Returns the option of `refiners generate --like` for each missing picture or file."""
    names = re.findall(r'"([^"]+)": "PATH"', match[1])
    return f"Add {' '.join(quoted('--condition', f'{name}=PATH') for name in names)}."


_PHRASES: Final[tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]] = (
    (r"Pass conditions=\{((?:\"[^\"]+\": \"PATH\"(?:, )?)+)\}\.", _condition_options),
    (
        r"Pass the function: conditions=\{[\"'](.+)\.preprocess[\"']: function\}",
        "Write {adapter} {0}=PICTURE,preprocess=NAME",
    ),
    (r"Pass the model: model=\"([^\"]+)\"", "Add {model} {0}"),
    (r"conditions=\{adapter: None\}", "{adapter} NAME:0"),
    (
        r"conditions=\{adapter: Condition\([^()]*scale=([\d.]+)[^()]*\)\}",
        "{adapter} NAME=PICTURE:{0}",
    ),
    (r"conditions=\{adapter: \{[^{}]*\}\}", "{adapter} NAME=INPUT=PICTURE,INPUT=PICTURE"),
    (r"conditions=\{[^{}]*\}(?: with what load_adapter returned)?", "{adapter} NAME=PICTURE"),
    (
        r"Condition\(picture, preprocess=[\"']([^\"']+)[\"']\)",
        "{adapter} NAME=PICTURE,preprocess={0}",
    ),
    (r"Condition\((?:value, )?scale=([\d.]+)\)", "{adapter} NAME=PICTURE:{0}"),
    (r"; Condition\(value, mask=\.\.\.\) limits an adapter", ""),
    (r"\bscale=\{\"([\w.]+)\": 1\.0\}", "{adapter} NAME:{0}=1"),
    (
        r"(?:refiners\.)?load_adapter\([\"']([^\"']+)[\"'][^()]*file=[\"']([^\"']+)[\"']\)",
        "{adapter} {0}={1}",
    ),
    (
        r"(?:refiners\.)?load_adapter\([\"']([^\"']+)[\"'], model, (\w+)=[\"']([^\"']+)[\"']\)",
        "{adapter} {0},{1}={2}",
    ),
    (
        r"(?:refiners\.)?load_adapter\([\"']([^\"']+)[\"'][^()]*(?:\([^()]*\))?\)",
        "{adapter} {0}",
    ),
    (r"Eject ([\w-]+) first", "Leave {adapter} {0} out"),
    (
        r"Pass a text as the prompt, or load a model that was trained for chats",
        "Run refiners write PROMPT, or choose another {model}",
    ),
    (r"Put it on first: adapter\.inject\(model\)", "Write {adapter} NAME"),
    (r"(?:refiners\.)?load_model\([\"']([^\"']+)[\"']\)", "{model} {0}"),
    (r"print\(sorted\(model\.slots\)\)", "refiners tree MODEL shows its places"),
    (r"print\(\) the tree to see its names", "refiners tree MODEL shows the names"),
    (r"refiners_core\.weights\.(rewrite_pickle\(.*, sha256=)\.\.\.\)", _pickle_command),
    (r"\(width, height\)", "WIDTHxHEIGHT"),
)
"""Expressions of Python, and the words of the shell for them; groups are quoted."""


def shell_words(text: str, options: Collection[str]) -> str:
    """Translates a hint or a message into the words of the shell.

    Args:
        text: A text for readers of Python.
        options: The options of the command, such as `--steps`.

    Example:
        >>> shell_words("Try size=(512, 512).", ["--size"])
        'Try --size 512x512.'
    """
    adapter = next((name for name in ("--adapter", "--with") if name in options), None)
    model = "--model" if "--model" in options else "refiners generate PROMPT --model"

    def translated(match: re.Match[str], words: str | Callable[[re.Match[str]], str]) -> str:
        if callable(words):
            return words(match)
        groups = [quoted(group) for group in match.groups() if group is not None]
        return words.format(*groups, adapter=adapter, model=model)

    for pattern, words in _PHRASES:
        if adapter is None and isinstance(words, str) and "{adapter}" in words:
            continue
        text = re.sub(pattern, lambda match, words=words: translated(match, words), text)

    named = {name: option for option in options if (name := _argument(option)) not in OPTIONS}
    arguments = {**OPTIONS, **named}

    def option_of(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        option = arguments[name]
        if option not in options:
            return _variable(name, value) or match[0]
        if value == "False":
            return f"without {option}"
        return option if value in (None, "True") else f"{option} {_shell_value(value)}"

    def bare(match: re.Match[str]) -> str:
        before, name, after = (part for part in match.groups() if part is not None)
        option = OPTIONS.get(name)
        return f"{before}{option}{after}" if option in options else match[0]

    text = _BARE.sub(bare, _arguments(arguments).sub(option_of, text))
    # without the option, the variable stays, which such hints name anyway
    return text.replace("REFINERS_OFFLINE unset, REFINERS_OFFLINE", "REFINERS_OFFLINE")


def _argument(option: str) -> str:
    """Returns the name in Python of an option such as `--rank`."""
    return option.lstrip("-").replace("-", "_")


def _variable(name: str, value: str | None) -> str:
    """Returns the setting of the variable for an argument, in commands without the option."""
    variable = _VARIABLES.get(name)
    if variable is None:
        return ""
    if value == "False":
        return f"{variable} unset"
    return f"{variable}={'1' if value == 'True' else _shell_value(value) if value else '...'}"


def _shell_value(value: str) -> str:
    if value.startswith("["):
        return "".join(value.strip("[]").split())
    if value.startswith("("):
        return "x".join(part.strip() for part in value.strip("()").split(",") if part.strip())
    return quoted(value.strip("\"'"))
