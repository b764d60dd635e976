"""Tries a generation without weights, so that what cannot work is refused before any is fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refiners.cli.adapter_option import AdapterOption
from refiners.errors import OptionError

if TYPE_CHECKING:
    from refiners_core import Adapter


def check_manifests(model: str, options: Sequence[AdapterOption]) -> None:
    """Checks names, rules and compatibility by the manifests alone; torch is not imported.

    Raises:
        RefinersError: The model has no such name, or an adapter does not suit it.
    """
    from refiners.choose.compatibility import ModelFacts, choose
    from refiners.choose.lookup import find_model
    from refiners.choose.policy import Guard
    from refiners.choose.variant import verdicts
    from refiners.sources.local import is_local
    from refiners.sources.repository import PREFIX, parse_address
    from refiners.sources.user_file import check_file

    guard = Guard.from_environment()
    for one in options:
        guard.admit(one.adapter)
        check_file(one.adapter, one.file)
    if model.startswith(PREFIX):
        parse_address(model)
        return
    if is_local(model):
        _check_path(model)
        return
    found = find_model(model)
    guard.admit(found, found.spec.weights.values())
    facts = ModelFacts(found.name, found.spec.base or found.name, found.spec.facts)
    for one in options:
        choose(one.adapter, facts, verdicts(one.adapter, facts, guard=guard))


def dry_run(
    model: str,
    prompt: str,
    options: Sequence[AdapterOption],
    values: Sequence[Any],
    asked: Mapping[str, Any],
    device: str | None,
    dtype: str | None,
    offline: bool | None,
) -> None:
    """Checks options, conditions and arguments on the bare structure of a named model.

    Args:
        model: A name; of a path or an address nothing is known before it is opened.
        prompt: What the pictures show.
        options: The adapters.
        values: What each of them is told.
        asked: The other arguments of `generate`.
        device: Where weights will go.
        dtype: What they will be cast to.
        offline: Whether to stay offline.

    Raises:
        RefinersError: As the generation would.
    """
    from refiners.load import dress, load_adapter, outline, torch_options
    from refiners.sources.local import is_local
    from refiners.sources.repository import PREFIX
    from refiners_core import Condition

    torch_options(device, dtype)
    is_named = not (is_local(model) or model.startswith(PREFIX))
    built = outline(model) if is_named else None
    conditions: dict[Any, Condition] = {}
    for one, value in zip(options, values, strict=True):
        if built is None or one.file is not None:  # a file is read where it is put on for good
            _check_pictures(one, load_adapter(one.name, offline=offline, **one.arguments))
            continue
        adapter = dress(built, one.name, **one.options)
        _check_pictures(one, adapter)
        conditions[adapter] = Condition(value, scale=one.scale)
    if built is not None:
        built.check(prompt, conditions=conditions, **asked)


def _check_path(model: str) -> None:
    if not Path(model).exists():
        raise OptionError(
            f"there is no file and no folder {model}.",
            hint="Write --model with a name (refiners list), or a path that is there.",
        )


def _check_pictures(option: AdapterOption, adapter: Adapter) -> None:
    """Makes sure that an adapter gets the pictures that it looks at, and no others."""
    name = option.name
    if adapter.takes_condition and not option.pictures and option.scale:
        raise OptionError(
            f"{name} looks at a picture, and none is given.",
            hint=f"Write --adapter {name}={_example(adapter)}.",
            dist=option.adapter.dist,
        )
    if not adapter.takes_condition and option.pictures:
        raise OptionError(
            f"{name} does not look at a picture, and one is given.",
            hint=f"Write --adapter {name}:{option.scale:g}.",
            dist=option.adapter.dist,
        )
    missing = [input for input in adapter.inputs if input not in option.pictures]
    if missing and option.pictures:
        raise OptionError(
            f"{name} needs {' and '.join(missing)} as well.",
            hint=f"Write --adapter {name}={_example(adapter)}.",
            dist=option.adapter.dist,
        )


def _example(adapter: Adapter) -> str:
    return ",".join(f"{name}={name}.png" for name in adapter.inputs) or "picture.png"
