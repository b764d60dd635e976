"""Merging: an adapter's effect in copies of the layers that it changes, and the way back."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, Final, Self

from torch import nn

from refiners_core.errors import AdapterError
from refiners_core.surgery.selection import Edit
from refiners_core.tree.chain import Chain


class Merging(nn.Module):
    """The part of every adapter that merges its effect into copies of weights.

    The edits of a merged adapter are others, `merged_edits`; ejecting is derived from them as from
    any edits, so that no weight of the base is ever written.

    Args:
        key: The mark of the adapter on its layers and context values.
    """

    _merged: float | None = None

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key: Final = key

    def inject(self, tree: Chain) -> Self:
        """Puts the adapter on a tree; an adapter defines it."""
        raise NotImplementedError

    def eject(self) -> Self:
        """Takes the adapter off; an adapter defines it."""
        raise NotImplementedError

    def _worn_tree(self) -> Chain:
        """Returns the tree that wears the adapter; an adapter defines it."""
        raise NotImplementedError

    def merged_edits(self, model: Any, scale: float) -> Iterable[Edit]:
        """Returns the edits that put the adapter's effect into copies of weights of the base.

        Args:
            model: The tree that wears the adapter.
            scale: The strength at which it is merged.

        Raises:
            AdapterError: The subclass does not define it.
        """
        raise AdapterError(
            f"{self.key} cannot be merged: its effect is not a change of weights.",
            hint="Leave it worn; Condition(scale=...) sets its strength.",
        )

    @property
    def merged_scale(self) -> float | None:
        """The strength at which the adapter is merged; None while it is not."""
        return self._merged

    def merge(self, scale: float = 1.0) -> Self:
        """Merges the effect into copies of the layers that it changes, and returns the adapter.

        The model then computes as with the adapter at that scale, up to rounding, at the speed of a
        bare one. The base layers are kept untouched, so the copies need memory of their own. Until
        `unmerge`, conditions cannot change the strength.

        Args:
            scale: The strength, which `Condition(scale=...)` sets otherwise.

        Raises:
            AdapterError: The adapter is not worn, is merged already, is not a change of weights, or
                other adapters edit its layers or what a changed layer reads; nothing was changed.
            PlanError: The tree was edited by hand, or is running; nothing was changed.
        """
        if self._merged is not None:
            raise AdapterError(
                f"{self.key} is merged already, at scale {self._merged:g}.",
                hint="Call its unmerge() first.",
            )
        if not math.isfinite(scale):
            raise AdapterError(
                f"the scale of a merge is a finite number, not {scale!r}.",
                hint="Try adapter.merge(0.8).",
            )
        editing = dict.fromkeys(
            key
            for layer in self.modules()
            if isinstance(layer, Chain) and (record := layer.__dict__.get("_worn")) is not None
            for key in record.keys()  # noqa: SIM118
        )
        if editing:
            raise AdapterError(
                f"{self.key} cannot be merged: {', '.join(editing)} edits its layers.",
                hint="Eject that adapter first.",
            )
        return self._wear_anew(float(scale))

    def unmerge(self) -> Self:
        """Wears the adapter as before `merge`, with the very base layers, and returns it.

        Raises:
            AdapterError: The adapter is not merged.
            PlanError: The tree was edited by hand, or is running; nothing was changed.
        """
        if self._merged is None:
            raise AdapterError(f"{self.key} is not merged.", hint="Call its merge() first.")
        return self._wear_anew(None)

    @contextmanager
    def taken_off(self) -> Generator[None]:
        """Takes the adapter off for the length of a `with` block, for a change of its layers; then
        the same tree wears it again, merged if it was.

        Raises:
            AdapterError: No living tree wears the adapter.
            PlanError: The tree was edited by hand, or is running.
        """
        tree, merged = self._worn_tree(), self._merged
        self.eject()
        try:
            yield
        finally:
            self._merged = merged
            self.inject(tree)

    def _wear_anew(self, scale: float | None) -> Self:
        """Ejects the adapter and injects it again, merged at a scale or not."""
        tree, before = self._worn_tree(), self._merged
        self.eject()
        self._merged = scale
        try:
            return self.inject(tree)
        except BaseException:
            self._merged = before
            self.inject(tree)
            raise
