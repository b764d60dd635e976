"""Required advice of worn adapters: the arguments of `generate` where the caller gives none."""

import warnings
from collections.abc import Mapping, Sequence, Sized
from typing import Any, Final

from torch import Tensor

from refiners_core.errors import GenerationError, Notice
from refiners_core.models.samplers import SAMPLERS, Sampler
from refiners_core.sampler_name import find_name
from refiners_core.surgery.adapter import Adapter

_PATH: Final = ("steps", "timesteps", "sigmas")
"""The arguments that choose the same: which noise levels are visited."""


def follow_advice(adapters: Sequence[Adapter], given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a generation, with those that active adapters require.

    An argument of the caller takes precedence. `steps`, `timesteps` and `sigmas` exclude each
    other, so any of the caller's replaces those of the advice, unless it is as many steps as
    advised.

    Args:
        adapters: The adapters that act in the generation.
        given: The caller's sampler, steps, timesteps, sigmas and guidance; None where not given.

    Raises:
        GenerationError: Two adapters require different values, and the caller passes none.

    Warns:
        Notice: The caller passes another value than an adapter requires.
    """
    required = {
        adapter.key: _settings(adapter) for adapter in adapters if adapter.advice.is_required
    }
    if not required:
        return dict(given)
    arguments = dict(given)
    has_path = any(given[name] is not None for name in _PATH)
    for name in given:
        wanted = {key: items[name] for key, items in required.items() if name in items}
        is_given = has_path if name in _PATH else given[name] is not None
        if wanted and not is_given:
            arguments[name] = _agreed(name, wanted)
    if not has_path and arguments["timesteps"] is not None:
        arguments["steps"] = None
    if has_path and given["steps"] is not None:
        wanted = {
            key: items["timesteps"] for key, items in required.items() if "timesteps" in items
        }
        if any(len(timesteps) == given["steps"] for timesteps in wanted.values()):
            arguments |= {"steps": None, "timesteps": _agreed("timesteps", wanted)}
    for key, items in required.items():
        _warn_of_others(key, items, arguments)
    return arguments


def _settings(adapter: Adapter) -> dict[str, Any]:
    """Returns the advised arguments; the number of timesteps is the number of steps."""
    settings = adapter.advice.settings
    timesteps = settings.get("timesteps")
    return settings if timesteps is None else settings | {"steps": len(timesteps)}


def _agreed(name: str, wanted: Mapping[str, Any]) -> Any:
    """Returns the value that all adapters require."""
    values = list(wanted.values())
    if not all(_is_same(values[0], other) for other in values[1:]):
        needs = " and ".join(f"{key} needs {name}={value!r}" for key, value in wanted.items())
        raise GenerationError(
            f"the adapters disagree: {needs}.",
            hint=f"Pass one, such as {name}={values[0]!r}, or leave an adapter out: "
            "conditions={adapter: None}.",
        )
    return values[0]


def _warn_of_others(key: str, required: Mapping[str, Any], used: Mapping[str, Any]) -> None:
    """Warns of each argument that differs from the one that an adapter requires."""
    for name, ends in (("timesteps", 0), ("sigmas", 1)):
        if isinstance(used[name], Sized):
            used = dict(used) | {"steps": len(used[name]) - ends}
    others = [name for name in required if not _is_same(required[name], used[name])]
    if others:
        right = " and ".join(f"{name}={required[name]!r}" for name in others)
        actual = " and ".join(f"{name}={_shown(used[name])}" for name in others)
        warnings.warn(
            f"{key} is only right with {right}; this generation has {actual}, as it was asked to.",
            Notice,
            stacklevel=6,
        )


def _is_same(required: Any, used: Any) -> bool:
    used = used.tolist() if isinstance(used, Tensor) else used
    if isinstance(required, str):
        request = find_name(required)
        if isinstance(used, str):
            return request == find_name(used)
        kind = SAMPLERS.get(request.entry.name) if request and request.entry else None
        return type(used) is kind and _is_spaced(used, required)
    return tuple(used) == required if isinstance(used, list | tuple) else used == required


def _is_spaced(sampler: Sampler, name: str) -> bool:
    """Whether a sampler has the spacing that a name asks for, if it asks for one."""
    request = find_name(name)
    spacing = None if request is None else request.spacing
    return spacing in (None, sampler.schedule.spacing)


def _shown(value: Any) -> str:
    return type(value).__name__ if isinstance(value, Sampler) else repr(value)
