"""The slots of a model as a tree, with those that an adapter edits marked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Final, NamedTuple

from refiners.manifest.reader import parse
from refiners.manifest.schema import AdapterSpec, ModelManifest, ModelSpec, Target, Variant
from refiners.page.published import Plugin

_MOST: Final = 80
"""The most slots of a model that are shown."""


@dataclass
class Node:
    """A part of a model, or a slot in it."""

    name: str
    stages: tuple[str, ...] = ()
    """How the adapter edits this slot; nothing if it leaves it as it is."""
    is_exclusive: bool = False
    children: list[Node] = field(default_factory=list)

    @property
    def is_touched(self) -> bool:
        """Whether the adapter edits this slot or one below it."""
        return bool(self.stages) or any(child.is_touched for child in self.children)


class Places(NamedTuple):
    """The tree of the variants that edit the same slots."""

    labels: tuple[str, ...]
    base: str
    """The base whose slots are shown; empty if none is known that has them."""
    roots: tuple[Node, ...]
    edited: int
    """The number of slots that are edited."""


class KnownSlots:
    """The slots of the base models that a catalog or Refiners itself describes.

    Args:
        plugins: The plugins of the catalog.
    """

    def __init__(self, plugins: Iterable[Plugin] = ()) -> None:
        manifest, _ = parse((files("refiners") / "model.toml").read_text(), ModelManifest)
        assert manifest is not None, "the manifest of Refiners itself is valid"
        of_family = {name: spec.slots for name, spec in manifest.family.items()}
        self._slots: dict[str, tuple[str, ...]] = {}
        models = [*manifest.model.items()]
        models += [(p.entry.name, p.spec) for p in plugins if isinstance(p.spec, ModelSpec)]
        for name, spec in models:
            base = spec.base or name
            slots = spec.slots or of_family.get(spec.family) or self._slots.get(spec.family, ())
            if slots:
                self._slots.setdefault(base, slots)

    def places(self, spec: AdapterSpec) -> tuple[Places, ...]:
        """Returns a tree for each group of variants that edit the same slots of the same tree."""
        groups: dict[tuple[tuple[str, ...], tuple[Target, ...]], list[Variant]] = {}
        for variant in spec.variant:
            slots = self._slots.get(self._base(variant), ())[:_MOST]
            if variant.targets:
                groups.setdefault((slots, variant.targets[:_MOST]), []).append(variant)
        return tuple(
            Places(
                tuple(dict.fromkeys(variant.base or "any base" for variant in variants)),
                self._base(variants[0]),
                _tree(slots, targets),
                len({target.slot for target in targets}),
            )
            for (slots, targets), variants in groups.items()
        )

    def offered(self, name: str, spec: ModelSpec) -> tuple[str, ...]:
        """Returns the slots that a model offers, as far as they are known."""
        return (spec.slots or self._slots.get(spec.base or name, ()))[:_MOST]

    def _base(self, variant: Variant) -> str:
        """Returns the base on whose tree a variant is shown."""
        wanted = {target.slot for target in variant.targets}
        names = [variant.base] if variant.base in self._slots else [*self._slots]
        if variant.base is not None and variant.base not in self._slots:
            return ""
        return next((name for name in names if name and wanted <= {*self._slots[name]}), "")


@lru_cache(maxsize=4096)
def _tree(slots: tuple[str, ...], targets: tuple[Target, ...]) -> tuple[Node, ...]:
    edited: dict[str, list[Target]] = {}
    for target in targets:
        edited.setdefault(target.slot, []).append(target)
    top = Node("")
    for slot in dict.fromkeys((*slots, *edited)):
        node = top
        for part in slot.split(".")[:6]:
            child = next((each for each in node.children if each.name == part), None)
            if child is None:
                child = Node(part)
                node.children.append(child)
            node = child
        for target in edited.get(slot, ()):
            if target.stage not in node.stages:
                node.stages += (target.stage,)
            node.is_exclusive |= target.exclusive
    return tuple(top.children)
