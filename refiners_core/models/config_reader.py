"""Reading the `config.json` that lies beside published weights."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from refiners_core.errors import ModelError

T = TypeVar("T")


@dataclass(frozen=True)
class Format:
    """The table of a published format: what becomes of each of its keys.

    A key that no column has is refused by its name, unless it is null or begins with `_`, under
    which libraries keep notes of their own.

    Example:
        >>> Format.of(followed="width", fixed={"act_fn": ("silu",)}, idle="dropout").has("dropout")
        True
    """

    followed: frozenset[str]
    """Keys whose values are read."""
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict[str, tuple[Any, ...]])
    """Keys that may have only these values, the first of which is the default."""
    idle: frozenset[str] = frozenset()
    """Keys that change nothing of what is computed here."""

    @classmethod
    def of(
        cls, *, followed: str, fixed: Mapping[str, tuple[Any, ...]] | None = None, idle: str = ""
    ) -> "Format":
        """Returns a table whose columns are written as words with blanks between them."""
        return cls(frozenset(followed.split()), dict(fixed or {}), frozenset(idle.split()))

    def has(self, key: str) -> bool:
        """Whether the table says what becomes of a key."""
        return key.startswith("_") or key in self.followed | self.fixed.keys() | self.idle

    def unknown(self, data: Mapping[str, Any]) -> list[str]:
        """Returns the keys with a value that the table lacks."""
        return [key for key, value in data.items() if value is not None and not self.has(key)]


class Published:
    """A published configuration, read key by key; what is null or absent takes its default.

    Args:
        data: The content of the file.
        kinds: The classes that it may be of, where it names one.
        table: What becomes of each key; None where the caller checks the keys itself.
        file: The name of the file.

    Raises:
        ModelError: It names another class, has a key that the table lacks, or a value that cannot
            be built from.
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
        if not isinstance(found, wanted) or (wanted is int and isinstance(found, bool)):
            raise self.refusal(key, wanted.__name__)
        return found

    def numbers(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Returns a list of whole numbers."""
        found = self.data.get(key, default)
        if not isinstance(found, list | tuple) or not all(type(n) is int for n in found):
            raise self.refusal(key, "a list of whole numbers")
        return tuple(found)

    def per_level(self, key: str, default: int, levels: int) -> tuple[int, ...]:
        """Returns a whole number for each level; one number counts for all levels."""
        found = self.data.get(key, default)
        if type(found) is int:
            return (found,) * levels
        numbers = self.numbers(key, (default,) * levels)
        if len(numbers) != levels:
            raise self.refusal(key, f"{levels} numbers, one for each level")
        return numbers

    def sides(self, key: str, default: int) -> tuple[int, int]:
        """Returns height and width: one number for both, or a pair.

        Raises:
            ModelError: It is neither.
        """
        found: Any = self.data.get(key)
        sides: Any = default if found is None else found
        pair: Any = (sides, sides) if type(sides) is int else sides
        is_pair = isinstance(pair, list | tuple) and len(pair) == 2
        if not is_pair or not all(type(side) is int and side > 0 for side in pair):
            raise self.refusal(key, "one whole number or [height, width]")
        return pair[0], pair[1]

    def only(self, key: str, *allowed: Any) -> None:
        """Checks a value that is not configurable here; the first one allowed is the default.

        Raises:
            ModelError: It is another one, or null where null means something else.
        """
        if key not in self.data:
            return
        found = self.data[key]
        found = list(found) if isinstance(found, tuple) else found
        if found is None and (not allowed or not allowed[0]):
            return
        if found not in allowed:
            raise self.refusal(key, " or ".join(map(repr, allowed)) or "nothing")

    def refuse(self, keys: Iterable[str]) -> None:
        """Refuses the first of some keys, if there is one.

        Raises:
            ModelError: There is one.
        """
        for key in keys:
            raise ModelError(
                f"the {self.file} of {self.kind} has {key} = {self.data.get(key)!r}, a setting "
                "that is not known here.",
                hint=f"Delete {key} from the configuration to read the model without it.",
            )

    def refusal(self, key: str, wanted: str) -> ModelError:
        """Returns the error about a value that cannot be built from."""
        return ModelError(
            f"the {self.file} of {self.kind} has {key} = {self.data.get(key)!r}; wanted: {wanted}.",
            hint="Such a model needs classes of its own.",
        )
