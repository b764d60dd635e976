"""The `advice` tables of a manifest: how a publisher recommends to use an adapter."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from refiners.host.text import UNSEEN
from refiners_core.sampler_name import SAMPLER_NAMES

Side = Annotated[int, Meta(ge=1, description="a number of pixels")]
Address = Annotated[
    str, Meta(pattern=rf"^https://[^\s{UNSEEN}]+$(?!\n)", description='an address, "https://..."')
]


class _Table(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename="kebab",
    kw_only=True,
    omit_defaults=True,
):
    """A table of advice."""


class Strength(_Table, frozen=True, kw_only=True):
    """The scales at which an adapter is useful."""

    usual: float
    least: float | None = None
    """The lowest useful scale; the usual one if missing."""
    most: float | None = None
    """The highest useful scale; the usual one if missing."""


class AdviceTable(_Table, frozen=True, kw_only=True):
    """The settings with which the publisher recommends to use an adapter.

    They inform. With `required`, a generation follows the sampler, the steps, the timesteps and the
    guidance unless its caller passes others.
    """

    trigger_words: tuple[str, ...] = ()
    """The words that the adapter was trained to react to."""
    strength: Strength | None = None
    sampler: Annotated[str, Meta(extra_json_schema={"examples": [*SAMPLER_NAMES]})] | None = None
    """The name of a sampler, such as `lcm`, which a spacing may follow, as in `euler-trailing`."""
    steps: Annotated[int, Meta(ge=1, description="a whole number from 1 on")] | None = None
    guidance: Annotated[float, Meta(ge=0, description="a number from 0 on")] | None = None
    timesteps: tuple[Annotated[float, Meta(ge=0, description="a number from 0 on")], ...] = ()
    """The timesteps that the network must read, decreasing, in training steps."""
    clip_skip: Annotated[int, Meta(ge=1, description="a whole number from 1 on")] | None = None
    """The number of last layers of the text encoder to skip."""
    size: tuple[Side, ...] | Side | None = None
    """One side, or width and height, in pixels."""
    examples: tuple[Address, ...] = ()
    """The addresses of example pictures."""
    required: bool = False
    """Whether the adapter is only right with them."""

    def over(self, general: AdviceTable) -> AdviceTable:
        """Returns this advice of a variant, with the adapter's where it has none."""
        return msgspec.structs.replace(general, **{name: getattr(self, name) for name in self.keys})

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the keys that have a value."""
        empty = AdviceTable()
        names = self.__struct_fields__
        return tuple(name for name in names if getattr(self, name) != getattr(empty, name))

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of `refiners_core.Advice`."""
        strength = self.strength
        values = {
            name: getattr(self, name) for name in self.__struct_fields__ if name != "required"
        }
        if strength is not None:
            least = strength.usual if strength.least is None else strength.least
            most = strength.usual if strength.most is None else strength.most
            values["strength"] = least, strength.usual, most
        return values | {"timesteps": self.timesteps or None, "is_required": self.required}
