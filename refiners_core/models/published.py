"""Reading the `config.json` that stands beside published weights."""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from refiners_core.errors import ModelError

T = TypeVar("T")


class Published:
    """A published configuration, read key by key; what is null or absent takes its default.

    Args:
        data: The content of the file.
        kind: The class that it must be of, where it names one.

    Raises:
        ModelError: It names another class.
    """

    def __init__(self, data: Mapping[str, Any], *kinds: str) -> None:
        self.data: Final = data
        self.kind: Final = kinds[0]
        named = data.get("_class_name")
        if named is not None and named not in kinds:
            raise ModelError(
                f"this config.json is of {named}, not of {' or '.join(kinds)}.",
                hint="Give the file that lies beside the weights.",
            )

    def value(self, key: str, default: T) -> T:
        """Returns a value of the type that the default has.

        Raises:
            ModelError: It is of another type.
        """
        found: Any = self.data.get(key)
        if found is None:
            return default
        wanted = type(default)
        if wanted is float and type(found) is int:
            found = float(found)
        if not isinstance(found, wanted):
            raise self.refusal(key, wanted.__name__)
        return found

    def numbers(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Returns a list of whole numbers."""
        found = self.data.get(key, default)
        if not isinstance(found, list | tuple) or not all(type(n) is int for n in found):
            raise self.refusal(key, "a list of whole numbers")
        return tuple(found)

    def per_level(self, key: str, default: int, levels: int) -> tuple[int, ...]:
        """Returns a whole number for each level; one number stands for all levels."""
        found = self.data.get(key, default)
        if type(found) is int:
            return (found,) * levels
        numbers = self.numbers(key, (default,) * levels)
        if len(numbers) != levels:
            raise self.refusal(key, f"{levels} numbers, one for each level")
        return numbers

    def only(self, key: str, *allowed: Any) -> None:
        """Checks a value that is not configurable here; the first one allowed is the default.

        Raises:
            ModelError: It is another one.
        """
        found = self.data.get(key)
        found = list(found) if isinstance(found, tuple) else found
        if found is not None and found not in allowed:
            raise self.refusal(key, " or ".join(map(repr, allowed)))

    def refusal(self, key: str, wanted: str) -> ModelError:
        """Returns the error about a value that cannot be built from."""
        return ModelError(
            f"the config.json of {self.kind} has {key} = {self.data.get(key)!r}; wanted: {wanted}.",
            hint="Such a model needs classes of its own.",
        )
