"""Lists the measures of installed packages, and imports one."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from refiners.choose.policy import Guard
from refiners.errors import AmbiguousNameError, PluginError, RefinersError, UnknownNameError
from refiners.host.text import reason_of
from refiners.installed.declared import Declared
from refiners.installed.distribution import canonical_id
from refiners.installed.factory import import_reference
from refiners.installed.measure import package_measures

if TYPE_CHECKING:
    from refiners_core.measure import Measure

_SHOWN: Final = 12
"""The largest number of names in a hint."""


def measures() -> tuple[Declared, ...]:
    """Returns the measures that installed packages declare; no package is imported."""
    return package_measures().measures


def load_measure(name: str) -> Measure:
    """Imports a measure of a package.

    Args:
        name: The name of the measure, usually that of an adapter, or `distribution:name`.

    Raises:
        UnknownNameError, AmbiguousNameError: The name does not lead to exactly one measure.
        PolicyError: A rule of the project or the user, or an advisory, refuses the package.
        PluginError: The import failed, or did not lead to a measure.
    """
    measure = find_measure(name)
    Guard.from_environment().admit(measure)
    return _checked(_made(measure), measure)


def find_measure(name: str) -> Declared:
    """Finds a declared measure by its name, without importing its package.

    Raises:
        UnknownNameError, AmbiguousNameError: The name does not lead to exactly one measure.
    """
    declared = package_measures()
    id = canonical_id(name)
    matches = [m for m in declared.measures if name == m.name or id == m.id]
    if len(matches) == 1:
        return matches[0]
    if matches:
        ids = " or ".join(measure.id for measure in matches)
        raise AmbiguousNameError(
            f"{name!r} is a measure of {len(matches)} packages.", hint=f"Write {ids}."
        )
    unread = "".join(f" {fault}." for fault in declared.broken)
    names = sorted({measure.name for measure in declared.measures})
    close = get_close_matches(name, names, n=3)
    if close:
        hint = f"Did you mean {' or '.join(map(repr, close))}?"
    else:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        hint = f"Measures: {', '.join(names[:_SHOWN]) or 'none'}{more}."
    raise UnknownNameError(f"no package has a measure {name!r}.{unread}", hint=hint)


def _made(measure: Declared) -> Any:
    make = import_reference(measure.reference, measure.dist)
    try:
        return make()
    except (RefinersError, KeyboardInterrupt):
        raise
    except BaseException as error:  # including SystemExit
        raise PluginError(
            f"{measure.reference} failed: {type(error).__name__}: {reason_of(error)}.",
            hint=f"Try pip install -U {measure.dist}, or ask its author.",
            dist=measure.dist,
        ) from error


def _checked(made: Any, measure: Declared) -> Measure:
    """Returns a measure whose author has filled in what every measure has."""
    from refiners_core.measure import Measure

    fault = ""
    if not isinstance(made, Measure):
        fault = f"returned a {type(made).__name__}, not a Measure"
    elif not getattr(made, "base", ""):
        fault = "has no base"
    else:
        names = [figure.name for figure in getattr(made, "figures", ())]
        if not names:
            fault = "has no figures"
        elif len({*names}) < len(names):
            fault = f"has two figures of one name among {', '.join(names)}"
    if fault:
        raise PluginError(
            f"the measure {measure.id} {fault}.", hint="Ask its author.", dist=measure.dist
        )
    return made
