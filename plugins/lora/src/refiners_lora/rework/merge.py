"""One plain LoRA in place of several."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from refiners_core import Model
from refiners_core.errors import AdapterError
from refiners_lora.rework.combination import dare, ties
from refiners_lora.rework.convert import nearest
from refiners_lora.rework.product import PlainLora, made
from refiners_lora.rework.source import Changes, read_changes, refuse_dropped
from refiners_lora.rework.spectrum import checked_rank, checked_share
from refiners_lora.rework.target import Factors, Target, total, widest

METHODS: Final = ("concat", "svd", "ties", "dare")
"""The ways to combine LoRAs."""
Files = Mapping[str, float] | Mapping[Path, float] | Sequence[tuple[str | os.PathLike[str], float]]
"""Files and the strength of each."""
Combine = Callable[[Sequence[Tensor], Sequence[float]], Tensor]


@torch.no_grad()
def merge(
    files: Files,
    model: Model,
    method: str = "concat",
    *,
    rank: int | None = None,
    density: float = 0.5,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    drop: bool = False,
) -> PlainLora:
    """Makes one plain LoRA of several, each at a strength.

    Every method combines the changes of the weights, never the factors, whose sum would have
    cross terms. `concat` is exact: its rank is the sum of the ranks. `svd` approximates the same
    sum. `ties` (arXiv:2306.01708) and `dare` (arXiv:2311.03099) combine the changes of each layer
    and approximate the result.

    Args:
        files: The strength of each file, any number of any sign; files of strength 0 are left out.
        model: The model that the files are for, as in `convert`.
        method: The way to combine them.
        rank: The greatest rank of a layer, by default the greatest one in the files; not for
            `concat`.
        density: For `ties` and `dare`, the share of numbers that are kept.
        seed: For `dare`, the seed of the choice.
        dtype: The dtype of the weights; float32 by default.
        drop: Whether to leave out changes that a plain LoRA cannot carry.

    Raises:
        WeightsError: A file is unreadable, not a LoRA, or for another base.
        AdapterError: An argument is out of range, a change has no low rank and the method is
            `concat`, or a plain LoRA cannot carry a change.
    """
    if method not in METHODS:
        raise AdapterError(
            f"{method!r} is not a way to merge LoRAs; there are {', '.join(METHODS)}.",
            hint='Try method="concat".',
        )
    if rank is not None and method == "concat":
        raise AdapterError(
            f"concat keeps all ranks, so it does not take rank={rank}.", hint='Add method="svd".'
        )
    rank = None if rank is None else checked_rank(rank)
    checked_share("density", density)
    changes = _weighted(files, model)
    refuse_dropped(changes, drop=drop)
    by_path = _by_path(changes)
    rank = rank or _greatest_rank(by_path) if method != "concat" else None
    generator = torch.Generator().manual_seed(seed)
    layers: dict[str, tuple[Target, Factors]] = {}
    for path, terms in by_path.items():
        if method in ("concat", "svd"):
            target = total([term.scaled(strength) for term, strength in terms])
        elif method == "ties":
            target = _combined(terms, lambda m, s: ties(m, s, density))
        else:
            target = _combined(terms, lambda m, s: dare(m, s, density, generator))
        factors = nearest(target, rank, dtype) if rank else _concatenated(target, path, dtype)
        layers[path] = target, factors
    options = "" if rank is None else f" --rank {rank}"
    options += f" --density {density}" if method in ("ties", "dare") else ""
    options += f" --seed {seed}" if method == "dare" else ""
    return made(model, layers, changes, f"lora merge --method {method}{options}")


def _weighted(files: Files, model: Model) -> list[Changes]:
    pairs = [*files.items()] if isinstance(files, Mapping) else [*files]
    changes = [
        replace(read, origin=replace(read.origin, strength=float(strength)))
        for read, strength in ((read_changes(path, model), s) for path, s in pairs if s != 0)
    ]
    if not changes:
        raise AdapterError(
            "there is nothing to merge: every strength is 0, or no file is named.",
            hint='Try merge({"a.safetensors": 0.8, "b.safetensors": 0.5}, model).',
        )
    return changes


def _by_path(changes: Sequence[Changes]) -> dict[str, list[tuple[Target, float]]]:
    """Returns the changes of each layer with their strengths, sorted by path."""
    paths = sorted({path for each in changes for path in each.targets})
    return {
        path: [(c.targets[path], c.origin.strength) for c in changes if path in c.targets]
        for path in paths
    }


def _greatest_rank(by_path: Mapping[str, Sequence[tuple[Target, float]]]) -> int:
    targets = [term for terms in by_path.values() for term, _ in terms]
    ranks = [target.product[0].shape[1] for target in targets if target.product is not None]
    if not ranks:
        raise AdapterError("none of the files states a rank.", hint="Try rank=8.")
    return max(ranks)


def _combined(terms: Sequence[tuple[Target, float]], combine: Combine) -> Target:
    targets = widest([target for target, _ in terms])
    matrices = [target.matrix() for target in targets]
    whole = combine(matrices, [strength for _, strength in terms])
    return targets[0]._replace(whole=whole, product=None, written=None)


def _concatenated(target: Target, path: str, dtype: torch.dtype | None) -> Factors:
    if target.product is not None:
        return target.factored(*target.product, dtype)
    spectrum = target.spectrum()
    outputs, inputs = target.matrix_shape
    if spectrum.rank * (outputs + inputs) >= outputs * inputs:
        raise AdapterError(
            f"the change of {path!r} has full rank, so concat cannot carry it.",
            hint='Approximate it: method="svd", rank=32.',
        )
    return target.factored(*spectrum.factors(spectrum.rank), dtype)
