"""The examples that a training reads, and the sources that they come from."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Example:
    """One training example of an image base."""

    text: str
    """The prompt."""
    picture: Float[Tensor, "3 height width"] | None = None
    """The picture in 0...1, resized and cropped; None if `latents` are given."""
    latents: Float[Tensor, "channels latent_height latent_width"] | None = None
    """The latents, scaled as the base reads them."""
    conditions: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The value of each input of the adapter by name, a tensor without an axis of rows; the name is
    empty for an adapter with one unnamed input."""
    mask: Float[Tensor, "1 height width"] | None = None
    """The weight (0...1) of each pixel in the loss, cropped and flipped as the picture."""
    original: tuple[int, int] | None = None
    """Height and width of the picture in its file, which SDXL reads; None for those of the
    picture."""
    corner: tuple[int, int] = (0, 0)
    """The top and left edge of the crop in the resized and flipped picture, which SDXL reads."""
    is_prior: bool = False
    """Whether it shows what the base draws already, for prior preservation (arXiv:2208.12242,
    section 3.3)."""
    weight: float = 1.0
    """Its weight in the loss."""


@dataclass(frozen=True)
class TextExample:
    """One training example of a language model: a text, or a conversation."""

    text: str = ""
    """The text."""
    completion_start: int | None = None
    """The position in `text`, in characters, at which the completion begins; None for a text
    without a prompt."""
    messages: Sequence[Mapping[str, Any]] | None = None
    """The messages of a conversation, each with `role` and `content`, in place of `text`."""
    weight: float = 1.0
    """Its weight in the loss."""


@runtime_checkable
class Source(Protocol):
    """Examples by index; the same index and epoch give the same example, in any process."""

    @property
    def fingerprint(self) -> str:
        """A text that changes with the examples; resumed runs and caches compare it."""
        ...

    def __len__(self) -> int: ...

    def example(self, index: int, epoch: int) -> Example:
        """Returns an example.

        Args:
            index: The position in the source.
            epoch: The number of the epoch from 0, which augmentation depends on.
        """
        ...


@runtime_checkable
class TextSource(Protocol):
    """Texts by index."""

    @property
    def fingerprint(self) -> str:
        """A text that changes with the examples; resumed runs compare it."""
        ...

    def __len__(self) -> int: ...

    def example(self, index: int, epoch: int) -> TextExample:
        """Returns an example.

        Args:
            index: The position in the source.
            epoch: The number of the epoch from 0.
        """
        ...


@runtime_checkable
class Grouped(Protocol):
    """A source whose examples differ in size; a batch has examples of one group only."""

    def group(self, index: int) -> Hashable:
        """Returns what the examples of a batch have in common, such as their size."""
        ...
