"""Checks a generation without weights, so that an impossible one is refused before a fetch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refiners.cli.adapter_option import AdapterOption
from refiners.cli.medium import check_medium
from refiners.cli.scale_option import written_scale
from refiners.errors import Notice, OptionError

if TYPE_CHECKING:
    from refiners_core import Adapter


def check_manifests(model: str, options: Sequence[AdapterOption]) -> None:
    """Checks names, policy rules and compatibility by the manifests, without importing torch.

    Args:
        model: A name, a path, or an address.
        options: The adapters.

    Raises:
        RefinersError: The model does not exist, or an adapter does not suit it.
    """
    from refiners.choose.compatibility import ModelFacts, choose
    from refiners.choose.lookup import find_adapter, find_model
    from refiners.choose.policy import Guard
    from refiners.choose.variant import verdicts
    from refiners.hub.client import Hub
    from refiners.preprocessing import PreprocessorsOf
    from refiners.sources.local import is_local
    from refiners.sources.repository import PREFIX, parse_address
    from refiners.sources.user_file import check_file, with_file

    guard = Guard.from_environment()
    for option in options:
        guard.admit(option.adapter)
        check_file(option.adapter, option.file)
        find = PreprocessorsOf(option.adapter, True, None)
        for role in option.pictures if option.preprocess else ():
            find(role, option.preprocess if isinstance(option.preprocess, str) else "")
    if model.startswith(PREFIX):
        parse_address(model)
        return
    if is_local(model):
        _check_path(model)
        return
    installed = find_model(model)
    guard.admit(installed, installed.spec.weights.values())
    facts = ModelFacts(installed.name, installed.spec.base or installed.name, installed.spec.facts)
    for option in options:
        adapter = option.adapter
        if option.file is not None and not option.file.startswith(PREFIX):
            hub = Hub.from_environment(offline=True)
            reader = find_adapter(f"{adapter.dist}:{adapter.name}")
            adapter = with_file(reader, option.file, hub, "", guard, option.options)
        choose(adapter, facts, verdicts(adapter, facts, guard=guard))


def dry_run(
    model: str,
    prompt: Any,
    options: Sequence[AdapterOption],
    values: Sequence[Any],
    arguments: Mapping[str, Any],
    *,
    is_text: bool,
    device: str | None,
    dtype: str | None,
    offline: bool | None,
) -> None:
    """Checks the adapters and the arguments of a generation on a model without weights.

    Args:
        model: A name; the structure of a path or an address is unknown until it is opened.
        prompt: The prompt.
        options: The adapters.
        values: The condition of each adapter.
        arguments: The other arguments of `generate`.
        is_text: Whether a text is to be written, rather than a picture made.
        device: The device of the weights.
        dtype: The type of the weights.
        offline: Whether to stay offline.

    Raises:
        RefinersError: The generation would fail.
    """
    from refiners.load import dress, load_adapter, outline
    from refiners.sources.local import is_local
    from refiners.sources.repository import PREFIX
    from refiners.sources.torch_option import torch_options
    from refiners_core import Condition

    torch_options(device, dtype)
    is_named = not (is_local(model) or model.startswith(PREFIX))
    structure = outline(model) if is_named else None
    if structure is not None:
        check_medium(structure, model, is_text=is_text)
    conditions: dict[Any, Condition] = {}
    for option, value in zip(options, values, strict=True):
        # an adapter with a file reads it when it is put on the real model
        if structure is None or option.file is not None:
            adapter = load_adapter(option.name, offline=offline, **option.arguments)
            _check_pictures(option, adapter)
            continue
        adapter = dress(structure, option.name, **option.options)
        _check_pictures(option, adapter)
        conditions[adapter] = Condition(value, scale=option.scale, preprocess=option.preprocess)
    if structure is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Notice)  # the generation itself repeats them
            structure.check(prompt, conditions=conditions, **arguments)


def _check_path(model: str) -> None:
    if not Path(model).exists():
        raise OptionError(
            f"the model {model} does not exist.",
            hint="Write --model with a name (refiners list), or with an existing path.",
        )


def _check_pictures(option: AdapterOption, adapter: Adapter) -> None:
    """Checks that an adapter gets the pictures that it needs, and no others."""
    name = option.name
    written = name if option.file is None else option.file
    is_needed = adapter.takes_condition and adapter.needs_condition
    if is_needed and not option.pictures and option.scale:
        raise OptionError(
            f"{name} needs a picture.",
            hint=f"Write --adapter {written}={_example(adapter)}.",
            dist=option.adapter.dist,
        )
    if not adapter.takes_condition and option.pictures:
        raise OptionError(
            f"{name} does not take a picture.",
            hint=f"Write --adapter {written}:{written_scale(option.scale)}.",
            dist=option.adapter.dist,
        )
    missing = [input for input in adapter.inputs if input not in option.pictures]
    if missing and option.pictures:
        raise OptionError(
            f"{name} also needs {' and '.join(missing)}.",
            hint=f"Write --adapter {written}={_example(adapter)}.",
            dist=option.adapter.dist,
        )


def _example(adapter: Adapter) -> str:
    return ",".join(f"{name}={name}.png" for name in adapter.inputs) or "picture.png"
