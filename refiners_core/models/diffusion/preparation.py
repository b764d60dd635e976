"""Makes the values of conditions from pictures: `Condition(photo, preprocess=True)`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from typing import Any

from PIL import Image
from torch import Tensor

from refiners_core.condition import Condition
from refiners_core.errors import ConditionError
from refiners_core.preprocessor import NamedPreprocessor, Preprocessor
from refiners_core.surgery.adapter import Adapter


@dataclass(frozen=True)
class Preparation:
    """The value of a condition, in two stages: before and after networks of preprocessors run."""

    value: Any
    """The value with a blank picture for each result of a network."""
    finish: Callable[[], Any] | None = None
    """Returns the whole value; None if no network takes part."""


def prepare(adapter: Adapter, condition: Condition, size: tuple[int, int]) -> Preparation:
    """Applies the preprocessors that a condition asks for, all but those that run a network.

    A list, or a tensor with a batch axis, has one value per generated picture. Of several inputs,
    one that is itself a condition may name its own preprocessor.

    Args:
        adapter: The adapter that takes the condition.
        condition: The condition.
        size: Width and height of the generated pictures.

    Raises:
        ConditionError: There is nothing to preprocess, or a preprocessor refuses the value.
        RefinersError: The name of a preprocessor does not lead to exactly one.
    """
    if not is_preprocessed(condition):
        return Preparation(condition.value)
    chosen = chosen_preprocessors(adapter, condition)

    def made(make: Callable[[NamedPreprocessor, Any], Any]) -> Any:
        value = condition.value
        if not isinstance(value, Mapping):
            return make(chosen[""], value)
        return {
            role: _with_input(item, partial(make, chosen[role])) if role in chosen else item
            for role, item in value.items()
        }

    def run(preprocessor: NamedPreprocessor, value: Any) -> Any:
        return _each(preprocessor.load(), value, size)

    if not any(preprocessor.has_weights for preprocessor in chosen.values()):
        return Preparation(made(run))
    light = made(lambda item, v: _each(_blank, v, size) if item.has_weights else run(item, v))
    return Preparation(light, lambda: made(run))


def chosen_preprocessors(adapter: Adapter, condition: Condition) -> Mapping[str, NamedPreprocessor]:
    """Returns the preprocessor of each input that has one; an only input has no name.

    Raises:
        ConditionError: There is nothing to preprocess.
        RefinersError: The name of a preprocessor does not lead to exactly one.
    """
    wanted = _wanted(condition)
    if callable(condition.preprocess) and "" not in wanted:
        first = next(iter(wanted), "input")
        raise ConditionError(
            f"{adapter.key} takes several inputs, and preprocess= is one function.",
            hint=f'Apply it before: {{"{first}": preprocess(picture), ...}}.',
        )
    choices = {role: _choice(adapter, role, how) for role, how in wanted.items()}
    chosen = {role: item for role, item in choices.items() if item is not None}
    if not chosen or not named_preprocessors(condition).keys() <= chosen.keys():
        raise ConditionError(
            f"{adapter.key} takes the picture as it is: it declares no preprocessor.",
            hint="Leave preprocess= out.",
        )
    return chosen


def is_preprocessed(condition: Condition) -> bool:
    """Whether a condition, or one of its inputs, is to be preprocessed."""
    return condition.preprocess is not False or bool(named_preprocessors(condition))


def named_preprocessors(condition: Condition) -> dict[str, Any]:
    """Returns the `preprocess` of each input that is itself a condition with one."""
    inputs: Mapping[Any, Any] = condition.value if isinstance(condition.value, Mapping) else {}
    return {
        role: item.preprocess
        for role, item in inputs.items()
        if isinstance(item, Condition) and item.preprocess is not False and item.value is not None
    }


def _wanted(condition: Condition) -> dict[str, Any]:
    """Returns the `preprocess` of each input that is to be preprocessed."""
    explicit, outer, value = named_preprocessors(condition), condition.preprocess, condition.value
    if not isinstance(value, Mapping):
        return {} if outer is False else {"": outer}
    present = [role for role, item in value.items() if _plain(item) is not None]
    return {
        role: explicit.get(role, outer)
        for role in present
        if explicit.get(role, outer) is not False
    }


def _choice(adapter: Adapter, role: str, how: Any) -> NamedPreprocessor | None:
    """Returns the preprocessor of one input; None if the adapter declares none for it.

    Raises:
        ConditionError: A function cannot be called, or nothing finds preprocessors by name.
        RefinersError: The name does not lead to exactly one.
    """
    if not isinstance(how, bool | str):
        name = getattr(how, "__name__", type(how).__name__)
        _check_takes_size(how, name)
        return NamedPreprocessor(name, lambda: how, has_weights=True)  # or takes as long
    if adapter.preprocessors is None:
        raise ConditionError(
            f"{adapter.key} was not loaded by name, so nothing declares its preprocessor.",
            hint="Pass the function itself: Condition(picture, preprocess=function).",
        )
    return adapter.preprocessors(role, how if isinstance(how, str) else "")


def _check_takes_size(function: Preprocessor, name: str) -> None:
    """Checks that a function can be called with a picture and a size.

    Raises:
        ConditionError: Its signature does not allow it.
    """
    try:
        called = signature(function)
    except (TypeError, ValueError):  # functions in C without a signature
        return
    try:
        called.bind(None, size=(1, 1))
    except TypeError as error:
        raise ConditionError(
            f"preprocess= calls {name} with a picture and size=(width, height), which it does not "
            f"take: {error}.",
            hint="Try preprocess=lambda picture, size: function(picture).",
        ) from error


def _plain(item: Any) -> Any:
    return item.value if isinstance(item, Condition) else item


def _with_input(item: Any, make: Callable[[Any], Any]) -> Any:
    """Returns an input with what is made of its value; a condition keeps its other fields."""
    made = make(_plain(item))
    return replace(item, value=made, preprocess=False) if isinstance(item, Condition) else made


def _each(preprocess: Preprocessor, value: Any, size: tuple[int, int]) -> Any:
    if isinstance(value, Tensor) and value.ndim == 4:
        value = list(value)
    if isinstance(value, list | tuple):
        return [preprocess(item, size=size) for item in value]
    return preprocess(value, size=size)


def _blank(value: Any, *, size: tuple[int, int] | None = None) -> Image.Image:
    return Image.new("L", size or (1, 1))
