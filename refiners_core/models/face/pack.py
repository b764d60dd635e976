"""A pack of insightface: the models that detect and embed faces for an adapter."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

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
    """The package to install for faces in pictures, such as `refiners-ipadapter[insightface]`."""
    is_normed: bool
    """Whether the adapter reads embeddings of length 1; otherwise it reads raw ones."""
    place: Path = PLACE
    """The folder in which packs lie."""

    @property
    def vector(self) -> str:
        """The attribute of a face of insightface that the adapter reads, in words."""
        return "`normed_embedding`" if self.is_normed else "raw `embedding`"

    @property
    def numbers(self) -> str:
        """The advice to pass numbers in place of a picture, for hints."""
        return f"pass face as 512 numbers, the {self.vector} of {self.name}"
