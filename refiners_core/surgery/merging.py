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


def merging_copy(inner: nn.Module, base: nn.Module, path: str, key: str) -> Any:
    """Returns a copy of a layer that shares its parameters, and in which they can be replaced.

    Args:
        inner: The base layer, or the copy of another merged adapter.
        base: The base layer.
        path: The path of the layer, for messages.
        key: The key of the adapter that is merged, for messages.

    Raises:
        AdapterError: Another adapter wraps the layer inside the merged one, or the layer keeps its
            weight in another form, such as a quantised one.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> merging_copy(layer, layer, "unet.mid", "lora").weight is layer.weight
        True
    """
    if type(inner) is not type(base):
        raise AdapterError(
            f"{key} cannot be merged into {path!r}: another adapter changes what the layer reads.",
            hint="Eject that adapter, merge, and inject it again.",
        )
    weight = base._parameters.get("weight")
    if weight is None or not weight.is_floating_point():
        raise AdapterError(
            f"{key} cannot be merged into {path!r}: a {type(base).__name__} does not keep its "
            "weight as numbers.",
            hint="Load the model without quantisation.",
        )
    twin = type(inner).__new__(type(inner))
    twin.__dict__.update(inner.__dict__)
    twin.__dict__["_parameters"] = dict(inner._parameters)
    return twin


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
