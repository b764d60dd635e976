"""Composition: how several adapters on one model read one another, as values.

Adapters that are worn without it act in the order of their keys, each on what those before it
return.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

from torch import Tensor

from refiners_core.condition import Condition
from refiners_core.errors import AdapterError
from refiners_core.option import described, is_number
from refiners_core.surgery.adapter import Adapter
from refiners_core.surgery.key import natural
from refiners_core.surgery.wearable import Lane
from refiners_core.tree.chain import Chain

__all__ = ["Composition", "average", "parallel", "stack"]

_groups: Final = itertools.count(1)


@dataclass(frozen=True)
class Composition:
    """Adapters, and how they read one another; `stack` and `average` make one.

    Each stays an adapter of its own, with its own condition, scale and scales by row. Ejecting one
    leaves the others on, in their order and with their shares.

    Raises:
        AdapterError: There are fewer than two members, one is not an adapter or occurs twice, or a
            composition contains one of its kind or is two levels inside another.
    """

    members: tuple[Any, ...]
    """The adapters, and compositions of the other kind."""
    weights: tuple[float, ...] = ()
    """The share of each member in an average, 1 in total; empty for a stack."""

    def __post_init__(self) -> None:
        name = "average" if self.weights else "stack"
        if len(self.members) < 2:
            raise AdapterError(
                f"{name} takes two adapters or more; it got {len(self.members)}.",
                hint=f"Try compose.{name}(a, b).",
            )
        for member in self.members:
            if isinstance(member, Composition):
                is_same = bool(member.weights) == bool(self.weights)
                if is_same or any(isinstance(inner, Composition) for inner in member.members):
                    raise AdapterError(
                        f"{name} got a composition of {len(member.adapters)} adapters that is of "
                        "its own kind, or contains another.",
                        hint="Try average(stack(a, b), c) or stack(average(a, b), c).",
                    )
            elif not isinstance(member, Adapter):
                raise AdapterError(
                    f"{name} takes adapters, not {described(member)}.",
                    hint=f'Try compose.{name}(refiners.load_adapter("./a"), '
                    'refiners.load_adapter("./b")).',
                )
        if len({*self.adapters}) < len(self.adapters):
            raise AdapterError(
                f"{name} got the same adapter twice.", hint="Load it a second time instead."
            )

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        """The adapters of all members, in order."""
        parts = (m.adapters if isinstance(m, Composition) else (m,) for m in self.members)
        return tuple(itertools.chain(*parts))

    def inject(self, tree: Chain) -> Self:
        """Puts all adapters on a tree and returns the composition; a failure leaves none on.

        Args:
            tree: A model or a `Chain`.

        Raises:
            AdapterError, PlanError: As `Adapter.inject` raises them; or an adapter is worn already.
        """
        if worn := [adapter.key for adapter in self.adapters if adapter.is_worn]:
            raise AdapterError(
                f"{' and '.join(worn)} {'is' if len(worn) == 1 else 'are'} worn already, in an "
                "order of their own.",
                hint="Call eject() first, or load without a model: refiners.load_adapter(path).",
            )
        self._place(min(natural(adapter.key) for adapter in self.adapters), None)
        try:
            for adapter in self.adapters:
                adapter.inject(tree)
        except BaseException:
            for adapter in self.adapters:
                if adapter.is_worn:
                    adapter.eject()
                adapter.order, adapter.lane = natural(adapter.key), None
            raise
        return self

    def eject(self) -> Self:
        """Takes off the adapters that are still worn, and returns the composition.

        Raises:
            AdapterError: No member is worn.
            PlanError: The tree was edited by hand, or is running.
        """
        worn = [adapter for adapter in self.adapters if adapter.is_worn]
        if not worn:
            keys = ", ".join(adapter.key for adapter in self.adapters)
            raise AdapterError(f"none of {keys} is worn.", hint="Call inject(model) first.")
        for adapter in worn:
            adapter.eject()
        return self

    @contextmanager
    def on(self, tree: Chain) -> Generator[Self]:
        """Wears the adapters for the length of a `with` block."""
        self.inject(tree)
        try:
            yield self
        finally:
            if any(adapter.is_worn for adapter in self.adapters):
                self.eject()

    def _place(self, order: tuple[Any, ...], lane: Lane | None) -> None:
        group = next(_groups)
        for index, member in enumerate(self.members):
            mine = Lane(group, index, self.weights[index]) if self.weights else lane
            if isinstance(member, Composition):
                member._place((*order, index), mine)
            else:
                member.order, member.lane = (*order, index), mine


def stack(*members: Any) -> Composition:
    """Returns a composition in which each adapter reads what the one before it returns.

    Args:
        members: Adapters that are not worn, or averages, in the order in which they act. Where they
            change different places, or add beside a layer, the order has no effect.

    Raises:
        AdapterError: There are fewer than two, or one is not an adapter.

    Example:
        >>> from refiners_core.testing import Neighbour
        >>> [a.key for a in stack(Neighbour(key="b"), Neighbour(key="a")).adapters]
        ['b', 'a']
    """
    return Composition(members)


def average(*members: Any, weights: Sequence[float] | None = None) -> Composition:
    """Returns a composition in which all adapters read the same and their changes are averaged.

    The outputs are averaged, at each place: `y + sum w_i (f_i(x) - y)`. An average of weights,
    which makes one adapter out of several, is another operation.

    Args:
        members: Adapters that are not worn, or stacks.
        weights: The share of each, of any sum; by default all have the same.

    Raises:
        AdapterError: There are fewer than two members, another number of weights, a weight is not a
            number, or their sum is not positive.

    Example:
        >>> from refiners_core.testing import Neighbour
        >>> average(Neighbour(), Neighbour(), weights=[3, 1]).weights
        (0.75, 0.25)
    """
    shares = [1.0] * len(members) if weights is None else [*weights]
    is_right = len(shares) == len(members) and all(map(is_number, shares))
    if members and not (is_right and sum(shares) > 0):
        raise AdapterError(
            f"average of {len(members)} adapters takes as many numbers with a positive sum; "
            f"weights = {shares}.",
            hint=f"Try weights={[1] * len(members)}.",
        )
    return Composition(members, tuple([share / sum(shares) for share in shares]) or (1.0,))


def parallel(prompt: Any, *adapters: Adapter | None) -> tuple[list[Any], dict[Adapter, Condition]]:
    """Repeats prompts for each of several worn adapters, to answer for all in one pass.

    Args:
        prompt: A prompt of `generate`, or a list of them.
        adapters: Worn adapters; None for the model without any of them.

    Returns:
        All prompts for the first adapter, then all for the second, and so on; and conditions under
        which each row has only its adapter. Rows without one are bit-equal to the bare model's.

    Raises:
        AdapterError: No adapter is passed, or something else is passed as one.

    Example:
        >>> from refiners_core.testing import Neighbour
        >>> adapter = Neighbour()
        >>> prompts, conditions = parallel("Once", adapter, None)
        >>> prompts, conditions[adapter].scale
        (['Once', 'Once'], [1.0, 0.0])
    """
    hint = "Try prompts, conditions = compose.parallel(prompt, a, b)."
    if not adapters:
        raise AdapterError("parallel got no adapters.", hint=hint)
    for adapter in adapters:
        if not isinstance(adapter, Adapter | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise AdapterError(
                f"parallel takes a prompt and worn adapters, not {described(adapter)}.", hint=hint
            )
    is_list = isinstance(prompt, list | tuple) and not isinstance(next(iter(prompt), None), Mapping)
    is_list |= isinstance(prompt, Tensor) and prompt.ndim > 1
    prompts = list(prompt) if is_list else [prompt]
    conditions = {
        adapter: Condition(
            scale=[float(other is adapter) for other in adapters for _ in range(len(prompts))]
        )
        for adapter in dict.fromkeys(adapters)
        if adapter is not None
    }
    return prompts * len(adapters), conditions
