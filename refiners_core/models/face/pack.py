"""A pack of insightface: the models that detect and embed faces for an adapter."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from refiners_core.errors import AdapterError

FACE_WIDTH: Final = 512
"""The size of a face embedding of insightface."""
PLACE: Final = Path("~/.insightface/models")
"""The folder in which insightface keeps its packs."""


@dataclass(frozen=True)
class FacePack:
    """The models that an adapter of faces was trained with, and how it reads their embeddings."""

    name: str
    """The name of the pack, such as `buffalo_l`."""
    files: tuple[str, ...]
    """The models of the pack that are used: the detector and the face embedding."""
    extra: str
    """The package to install for faces in pictures, such as `refiners-ipadapter[insightface]`;
    empty if the models are not insightface's, and the user passes a detector."""
    is_normed: bool
    """Whether the adapter reads embeddings of length 1; otherwise it reads raw ones."""
    place: Path = PLACE
    """The folder in which packs lie."""
    width: int = FACE_WIDTH
    """The numbers of an embedding."""

    def following(self, settings: Mapping[str, Any], adapter: str) -> Self:
        """Returns the models that a variant of an adapter names, or these.

        A variant that was trained with other models has `settings.face = { name = "...", width =
        64 }`. Its faces in pictures need a detector that the user passes.

        Args:
            settings: The settings of the variant.
            adapter: The name of the adapter, for messages.

        Raises:
            AdapterError: `settings.face` is not a table of `name` and `width`.
        """
        stated = settings.get("face")
        if stated is None:
            return self
        is_table = isinstance(stated, Mapping) and {*stated} == {"name", "width"}
        width = stated["width"] if is_table else None
        if not isinstance(width, int) or width < 1:
            raise AdapterError(
                f"{adapter} has settings.face = {stated!r}, not the name of the face models and "
                "the width of their embeddings.",
                hint='Write face = { name = "buffalo_l", width = 512 }.',
            )
        return replace(self, name=str(stated["name"]), width=width, files=(), extra="")

    @property
    def title(self) -> str:
        """The models in words."""
        return f"insightface's {self.name}" if self.extra else self.name

    @property
    def vector(self) -> str:
        """The attribute of a face of insightface that the adapter reads, in words."""
        return "`normed_embedding`" if self.is_normed else "raw `embedding`"

    @property
    def numbers(self) -> str:
        """The advice to pass numbers in place of a picture, for hints."""
        return f"pass face as {self.width} numbers, the {self.vector} of {self.name}"
