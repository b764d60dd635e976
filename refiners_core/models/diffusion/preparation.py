"""Makes the values of conditions from pictures: `Condition(photo, preprocess=True)`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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

    A list, or a tensor with a batch axis, has one value per generated picture.

    Args:
        adapter: The adapter that takes the condition.
        condition: The condition.
        size: Width and height of the generated pictures.

    Raises:
        ConditionError: There is nothing to preprocess, or a preprocessor refuses the value.
        RefinersError: The name of a preprocessor does not lead to exactly one.
    """
    if condition.preprocess is False:
        return Preparation(condition.value)
    chosen = chosen_preprocessors(adapter, condition)

    def made(make: Callable[[NamedPreprocessor, Any], Any]) -> Any:
        value = condition.value
        if not isinstance(value, Mapping):
            return make(chosen[""], value)
        return {role: make(chosen[role], v) if role in chosen else v for role, v in value.items()}

    def run(preprocessor: NamedPreprocessor, value: Any) -> Any:
        return _each(preprocessor.load(), value, size)

    if not any(preprocessor.has_weights for preprocessor in chosen.values()):
        return Preparation(made(run))
    light = made(lambda item, v: _each(_blank, v, size) if item.has_weights else run(item, v))
    return Preparation(light, lambda: made(run))


def chosen_preprocessors(adapter: Adapter, condition: Condition) -> Mapping[str, NamedPreprocessor]:
    """Returns the preprocessor of each input; the only input of an adapter has no name.

    Raises:
        ConditionError: There is nothing to preprocess.
        RefinersError: The name of a preprocessor does not lead to exactly one.
    """
    how = condition.preprocess
    roles = [*condition.value] if isinstance(condition.value, Mapping) else [""]
    if not isinstance(how, bool | str):
        if roles != [""]:
            raise ConditionError(
                f"{adapter.key} takes several inputs, and preprocess= is one function.",
                hint=f'Apply it before: {{"{roles[0]}": preprocess(picture), ...}}.',
            )
        name = getattr(how, "__name__", type(how).__name__)
        return {"": NamedPreprocessor(name, lambda: how, has_weights=True)}  # or takes as long
    find = adapter.preprocessors
    if find is None:
        raise ConditionError(
            f"{adapter.key} was not loaded by name, so nothing declares its preprocessor.",
            hint="Pass the function itself: Condition(picture, preprocess=function).",
        )
    name = how if isinstance(how, str) else ""
    declared = {role: find(role, name) for role in roles}
    chosen = {role: item for role, item in declared.items() if item is not None}
    if not chosen:
        raise ConditionError(
            f"{adapter.key} takes the picture as it is: it declares no preprocessor.",
            hint="Leave preprocess= out.",
        )
    return chosen


def _each(preprocess: Preprocessor, value: Any, size: tuple[int, int]) -> Any:
    if isinstance(value, Tensor) and value.ndim == 4:
        value = list(value)
    if isinstance(value, list | tuple):
        return [preprocess(item, size=size) for item in value]
    return preprocess(value, size=size)


def _blank(value: Any, *, size: tuple[int, int] | None = None) -> Image.Image:
    return Image.new("L", size or (1, 1))
