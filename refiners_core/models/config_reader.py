"""Reading the `config.json` beside published weights."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from refiners_core.errors import ModelError

T = TypeVar("T")


@dataclass(frozen=True)
class Format:
    """The keys of a published format, by how they are read.

    A key that the format does not list is refused by name, unless its value is null or it begins
    with `_`, as the notes of libraries do.

    Example:
        >>> Format.of(followed="width", fixed={"act_fn": ("silu",)}, idle="dropout").has("dropout")
        True
    """

    followed: frozenset[str]
    """Keys whose values are read."""
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict[str, tuple[Any, ...]])
    """Keys with the only values that they may have, the default first."""
    idle: frozenset[str] = frozenset()
    """Keys that do not change any result."""

    @classmethod
    def of(
        cls, *, followed: str, fixed: Mapping[str, tuple[Any, ...]] | None = None, idle: str = ""
    ) -> "Format":
        """Returns a format from keys written as words with blanks between them."""
        return cls(frozenset(followed.split()), dict(fixed or {}), frozenset(idle.split()))

    def has(self, key: str) -> bool:
        """Whether the format lists a key."""
        return key.startswith("_") or key in self.followed | self.fixed.keys() | self.idle

    def unknown(self, data: Mapping[str, Any]) -> list[str]:
        """Returns the keys with a value that the format does not list."""
        return [key for key, value in data.items() if value is not None and not self.has(key)]


class Published:
    """A published configuration, read key by key; null and absent keys have their default.

    Args:
        data: The content of the file.
        kinds: The classes that the file may name.
        table: The keys of the format; None if the caller checks the keys.
        file: The name of the file, for messages.

    Raises:
        ModelError: The file names another class, has a key that the format does not list, or an
            unsupported value.
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        *kinds: str,
        table: Format | None = None,
        file: str = "config.json",
    ) -> None:
        self.data: Final = data
        self.kind: Final = kinds[0]
        self.file: Final = file
        named = data.get("_class_name")
        if named is not None and named not in kinds:
            raise ModelError(
                f"this {file} is of {named}, not of {' or '.join(kinds)}.",
                hint="Give a model whose part is of that class.",
            )
        if data.get("quantization_config") is not None:
            raise self.refusal("quantization_config", "weights that are not quantised")
        if table is not None:
            for key, allowed in table.fixed.items():
                self.only(key, *allowed)
            self.refuse(table.unknown(data))

    def value(self, key: str, default: T) -> T:
        """Returns a value of the default's type.

        Raises:
            ModelError: The value has another type.
        """
        value: Any = self.data.get(key)
        if value is None:
            return default
        kind = type(default)
        if kind is float and type(value) is int:
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.refusal(key, kind.__name__)
        return value

    def numbers(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Returns a list of whole numbers.

        Raises:
            ModelError: The value is not a list of whole numbers.
        """
        numbers = self.data.get(key, default)
        if not isinstance(numbers, list | tuple) or not all(type(n) is int for n in numbers):
            raise self.refusal(key, "a list of whole numbers")
        return tuple(numbers)

    def per_level(self, key: str, default: int, levels: int) -> tuple[int, ...]:
        """Returns a whole number for each level; a single number applies to all levels.

        Raises:
            ModelError: The value is neither a number nor a list with one for each level.
        """
        value = self.data.get(key, default)
        if type(value) is int:
            return (value,) * levels
        numbers = self.numbers(key, (default,) * levels)
        if len(numbers) != levels:
            raise self.refusal(key, f"{levels} numbers, one for each level")
        return numbers

    def sides(self, key: str, default: int) -> tuple[int, int]:
        """Returns height and width, from one number for both or from a pair.

        Raises:
            ModelError: The value is neither a positive number nor a pair of them.
        """
        value: Any = self.data.get(key)
        sides: Any = default if value is None else value
        pair: Any = (sides, sides) if type(sides) is int else sides
        is_pair = isinstance(pair, list | tuple) and len(pair) == 2
        if not is_pair or not all(type(side) is int and side > 0 for side in pair):
            raise self.refusal(key, "one whole number or [height, width]")
        return pair[0], pair[1]

    def only(self, key: str, *allowed: Any) -> None:
        """Checks that a key has one of the supported values, of which the first is the default.

        Raises:
            ModelError: The value is another one, or null although null has another meaning.
        """
        if key not in self.data:
            return
        value = self.data[key]
        value = list(value) if isinstance(value, tuple) else value
        if value is None and (not allowed or not allowed[0]):
            return
        if value not in allowed:
            raise self.refusal(key, " or ".join(map(repr, allowed)) or "nothing")

    def refuse(self, keys: Iterable[str]) -> None:
        """Refuses unknown keys.

        Args:
            keys: The unknown keys, often none.

        Raises:
            ModelError: `keys` has a key; the first one is named.
        """
        for key in keys:
            raise ModelError(
                f"the {self.file} of {self.kind} has {key} = {self.data.get(key)!r}, which is not "
                "a known setting.",
                hint=f"Delete {key} from the configuration to read the model without it.",
            )

    def refusal(self, key: str, wanted: str) -> ModelError:
        """Returns the error about an unsupported value."""
        return ModelError(
            f"the {self.file} of {self.kind} has {key} = {self.data.get(key)!r}; wanted: {wanted}.",
            hint="Such a model needs other classes than those built in.",
        )
