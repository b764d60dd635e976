"""The form of a recipe: everything from which a picture can be made again, as a picture has it."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

VERSION: Final = 1
"""The latest version of the form that is read."""

Count = Annotated[int, Meta(ge=1, le=10_000)]
Side = Annotated[int, Meta(ge=1, le=65_536)]
Seed = Annotated[int, Meta(ge=0)]
Levels = Annotated[list[int | float], Meta(max_length=10_000)]
Share = Annotated[float, Meta(ge=0, le=1)]
Text = Annotated[str, Meta(max_length=1_000_000)]


class _Table(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename="kebab",
    kw_only=True,
    omit_defaults=True,
):
    """A table of a recipe."""


class ModelRecord(_Table, frozen=True, kw_only=True):
    """The model that made a picture."""

    id: str = ""
    """The canonical name, an address with its commit, or `file:` and the name of a local file."""
    version: str = ""
    kind: str = msgspec.field(default="", name="class")
    """The class of a model that was not loaded by name or path."""
    base: str = ""
    files: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    """The sha256 of each file by its role or name; a shorter hash as another program wrote it."""
    dtypes: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    """The dtype of each component."""


class AdapterRecord(_Table, frozen=True, kw_only=True):
    """An adapter that acted, and its condition."""

    key: str
    """The name of its condition; a part of it is named `key.input`, its mask `key.mask`."""
    name: str = ""
    id: str = ""
    version: str = ""
    kind: str = msgspec.field(default="", name="class")
    """The class of an adapter that comes from no package."""
    file: str = ""
    """The name of the user's file, or its address on the Hub with the commit."""
    files: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    """The sha256 of each file by its role."""
    options: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    """The arguments of its constructor."""
    scale: Any = 1.0
    start: Share = 0.0
    end: Share = 1.0
    condition: Any = None
    """A number, a text, or the hash of a picture or a tensor; or several."""
    mask: Any = None
    preprocess: bool | str | dict[str, Any] = False
    """The preprocessor of the condition: a canonical name, true for those that the adapter declares
    for several inputs, or the name of a function as `{"object": name}`."""
    preprocessors: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    """The version of each preprocessor by its canonical name."""


class ArgumentRecord(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """The arguments of `generate` by their names in Python, with the values that were used."""

    prompt: Text | list[Text] = ""
    negative_prompt: Text | list[Text] = ""
    count: Count = 1
    steps: Count | None = None
    timesteps: Levels | None = None
    sigmas: Levels | None = None
    guidance: Annotated[float, Meta(ge=0)] | None = None
    guidance_rescale: Share = 0.0
    sampler: dict[str, Any] | str | None = None
    """All fields of the sampler; or its name, as another program wrote it."""
    seed: Seed | list[Seed] | None = None
    size: tuple[Side, Side] | None = None
    sequential: bool = False
    strength: Share | None = None
    image: Any = None
    """The hash of the initial picture."""
    mask: Any = None
    latents: Any = None


class Recipe(_Table, frozen=True, kw_only=True):
    """The recipe of one picture: how it was made, without the pixels of what it was made from."""

    recipe: Annotated[int, Meta(ge=1)] = VERSION
    """The version of its form."""
    written_by: str = "refiners"
    """The program that made the picture: `refiners`, or one whose recipes are read in part."""
    model: ModelRecord
    adapters: tuple[AdapterRecord, ...] = ()
    arguments: ArgumentRecord
    made_with: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    """The versions of the software, and the kind of device."""
    image: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """The position of the picture among those of its generation."""
    ended_after: Count | None = None
    """The number of steps after which a callback ended the generation; None if none did."""

    @property
    def prompt(self) -> str:
        """The prompt of this picture."""
        return _nth(self.arguments.prompt, self.image // self.arguments.count)

    @property
    def negative_prompt(self) -> str:
        """The negative prompt of this picture."""
        return _nth(self.arguments.negative_prompt, self.image // self.arguments.count)

    @property
    def seed(self) -> int | None:
        """The seed of this picture; None if its noise came as a tensor."""
        seed = self.arguments.seed
        if isinstance(seed, list):
            return seed[self.image] if self.image < len(seed) else None
        return None if seed is None else seed + self.image

    @property
    def sampler(self) -> str:
        """The name of the sampler, or of its class; empty if it is not known."""
        sampler = self.arguments.sampler
        if isinstance(sampler, dict):
            return str(sampler.get("name") or sampler.get("object") or "")
        return sampler or ""


def _nth(texts: str | list[str], index: int) -> str:
    if isinstance(texts, str):
        return texts
    return texts[min(index, len(texts) - 1)] if texts else ""
