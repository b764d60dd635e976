"""The source of an adapter: its files, settings and advice."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from refiners_core.advice import Advice
from refiners_core.errors import AdapterError
from refiners_core.tree.chain import Chain

C = TypeVar("C")


@dataclass(frozen=True)
class Source:
    """The verified files that an adapter is built from, and their settings in the manifest."""

    files: Mapping[str, Path]
    """The paths of the files, by their names in the manifest; the main one is `weights`."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The values that the files do not contain, such as the number of attention heads."""
    variant: str = ""
    """The name of the variant for messages, such as `sd15`."""
    advice: Advice | None = None
    """The advice in the manifest for this variant; None without any."""
    begins: bool = False
    """Whether the adapter is about to be trained, so that the files are left out that training
    makes."""

    def sizes(self, name: str, config: Callable[..., C], **known: Any) -> C | None:
        """Returns the sizes that the settings state under a name; None if they state none.

        Args:
            name: The name of a table of the settings, such as `encoder`.
            config: The class of the sizes; the settings spell its fields with hyphens.
            known: The fields that follow from something else.

        Raises:
            AdapterError: The table has a name that is not a field.
        """
        table = self.settings.get(name)
        if table is None:
            return None
        try:
            return config(**{key.replace("-", "_"): size for key, size in table.items()}, **known)
        except TypeError as error:
            raise AdapterError(
                f"the variant {self.variant} has unknown settings {name!r}: {error}.",
                hint=f"They are the fields of {config.__name__}.",
            ) from error


Weights = Callable[[Chain], Source]
"""A function that returns the source for a model; a registry passes one to each adapter."""
