"""The layers that PEFT's configuration means, compared with those that a file has weights for."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from refiners_core.errors import WeightsError

_ALL_LINEAR: Final = "all-linear"
_NUMBER: Final = re.compile(r".*?\.[^.]*\.(?P<index>\d+)\.")
_SHOWN: Final = 3


def matching(pattern: str, field: str) -> re.Pattern[str]:
    """Returns the expression for the names of layers that a key of a pattern field means.

    Raises:
        WeightsError: The key is not a regular expression.
    """
    return _compiled(rf"(.*\.)?({pattern})$", pattern, field)


def is_targeted(config: Mapping[str, Any], name: str) -> bool:
    """Whether a configuration names a layer among those that are adapted.

    A text matches whole names as an expression; an item of a list is a name or the end of one.

    Args:
        config: PEFT's configuration, with `target_modules`.
        name: The name of the layer in the base model.

    Raises:
        WeightsError: A field is not a regular expression.
    """
    target, excluded = config.get("target_modules"), config.get("exclude_modules")
    saved = _texts(config.get("modules_to_save"))
    if excluded and _is_named(excluded, name, "exclude_modules"):
        return False
    if any(_compiled(rf"(^|.*\.){m}($|\..*)", m, "modules_to_save").match(name) for m in saved):
        return False
    if isinstance(target, str) and target.lower() == _ALL_LINEAR:
        return not name.endswith(("lm_head", "embed_tokens", "wte"))
    if not _is_named(target, name, "target_modules"):
        return False
    return isinstance(target, str) or _is_in_layers(config, name)


def mismatches(
    config: Mapping[str, Any], tuned: Iterable[str], layers: Iterable[str]
) -> Iterator[str]:
    """Yields where a configuration and the weights of a file differ, as clauses.

    Args:
        config: PEFT's configuration; without `target_modules` nothing is compared.
        tuned: The layers for which the file has weights of a method.
        layers: The layers of the model that such weights can be for.
    """
    if not config.get("target_modules") or config.get("peft_type") == "TRAINABLE_TOKENS":
        return
    present = list(tuned)
    missing = [name for name in layers if name not in present and is_targeted(config, name)]
    more = [name for name in present if not is_targeted(config, name)]
    if missing:
        yield (
            f"its configuration also targets {len(missing)} layers for which it has no weights: "
            f"{some(missing)}"
        )
    if more:
        yield (
            f"it changes {len(more)} layers that its configuration does not target, as the weights "
            f"are there: {some(more)}"
        )


def unmatched(config: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    """Yields the keys of rank and alpha patterns that match no layer, as clauses."""
    if config.get("peft_type") == "ADALORA":  # its pattern has masks, by names of tensors
        return
    for field in ("rank_pattern", "alpha_pattern"):
        patterns: Any = config.get(field)
        keys = [str(key) for key in patterns] if isinstance(patterns, Mapping) else []
        idle = [key for key in keys if not any(map(matching(key, field).match, names))]
        if idle:
            yield f"{some(idle)} in its {field} match no layer"


def some(names: Sequence[str]) -> str:
    """Returns the first names of a list in words, and the number of others."""
    shown = ", ".join(map(repr, names[:_SHOWN]))
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _is_named(value: Any, name: str, field: str) -> bool:
    if isinstance(value, str):
        return _compiled(value, value, field).fullmatch(name) is not None
    return any(name == end or name.endswith(f".{end}") for end in _texts(value))


def _is_in_layers(config: Mapping[str, Any], name: str) -> bool:
    """Whether a layer is in one of the blocks to which a configuration restricts its targets."""
    indices: Any = config.get("layers_to_transform")
    if indices is None or indices == []:
        return True
    patterns = _texts(config.get("layers_pattern"))
    rules = [
        _compiled(rf"(?:^|.*?\.){pattern}\.(?P<index>\d+)\.", pattern, "layers_pattern")
        for pattern in patterns
    ] or [_NUMBER]
    match = next((match for rule in rules if (match := rule.match(name))), None)
    allowed = cast("list[Any]", indices) if isinstance(indices, list) else [indices]
    return match is not None and int(match["index"]) in allowed


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(each) for each in cast("list[Any]", value)] if isinstance(value, list) else []


def _compiled(expression: str, written: str, field: str) -> re.Pattern[str]:
    try:
        return re.compile(expression)
    except re.error as error:
        raise WeightsError(
            f"the configuration's {field} has {written!r}, which is not a regular expression: "
            f"{error}.",
            hint="Fetch the file again.",
        ) from error
