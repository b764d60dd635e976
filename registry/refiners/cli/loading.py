"""Loads the model and the adapters of a command, after everything that can be checked before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from refiners.cli.adapter_option import AdapterOption
from refiners.cli.medium import check_medium
from refiners.cli.preflight import check_manifests, dry_run
from refiners.recipe.picture import open_picture


def checked_and_loaded(
    model: str,
    prompt: Any,
    adapters: Sequence[AdapterOption],
    arguments: Mapping[str, Any],
    loading: Mapping[str, Any],
    *,
    is_text: bool,
) -> tuple[Any, dict[Any, Any]]:
    """Returns the model that wears the adapters, and the condition of each.

    Args:
        model: A name, a path, or an address.
        prompt: The prompt.
        adapters: The adapters of the command line.
        arguments: The other arguments of the generation.
        loading: `device`, `dtype` and `offline`.
        is_text: Whether the command prints texts rather than pictures.

    Raises:
        RefinersError: The generation would fail, or a file cannot be fetched.
    """
    check_manifests(model, adapters)
    values = [option.value(open_picture) for option in adapters]
    dry_run(model, prompt, adapters, values, arguments, is_text=is_text, **loading)
    from refiners.load import load_adapter, load_model
    from refiners_core import Condition

    loaded: Any = load_model(model, **loading)
    check_medium(loaded, model, is_text=is_text)
    conditions: dict[Any, Condition] = {}
    for option, value in zip(adapters, values, strict=True):
        adapter = load_adapter(option.name, loaded, offline=loading["offline"], **option.arguments)
        conditions[adapter] = Condition(value, scale=option.scale, preprocess=option.preprocess)
    return loaded, conditions
