"""Plain LoRAs of files of any method, as they are or of another rank."""

import os

import torch

from refiners_core import Model
from refiners_core.errors import AdapterError
from refiners_lora.rework.product import PlainLora, made
from refiners_lora.rework.source import read_changes, refuse_dropped
from refiners_lora.rework.spectrum import Spectrum, checked_rank, checked_share
from refiners_lora.rework.target import Factors, Target

_SHOWN = 3


@torch.no_grad()
def convert(
    file: str | os.PathLike[str],
    model: Model,
    rank: int | None = None,
    *,
    dtype: torch.dtype | None = None,
    drop: bool = False,
) -> PlainLora:
    """Makes a plain LoRA of a file of any method that is read.

    Plain LoRAs keep their weights and alphas. Other changes of low rank, such as a LoHa, become
    factors of that rank, up to rounding. Those of full rank, such as a DoRA, need a rank, and are
    approximated by singular value decomposition. Changes that depend on the base weights are those
    of this model, at a strength of 1.

    Args:
        file: A safetensors file, or a folder that PEFT saved.
        model: The model that the file is for; on the meta device, unless a change depends on its
            weights.
        rank: The greatest rank of a layer.
        dtype: The dtype of the weights; by default that of the file for weights that stay, and
            float32 for new ones.
        drop: Whether to leave out changes that a plain LoRA cannot carry: those of norms, biases,
            token embeddings and layers that the model does not have.

    Raises:
        WeightsError: The file is unreadable, not a LoRA, or for another base.
        AdapterError: A change has no low rank and no rank is given, a plain LoRA cannot carry a
            change, or the model lacks the weights on which a change depends.
    """
    rank = None if rank is None else checked_rank(rank)
    changes = read_changes(file, model)
    refuse_dropped([changes], drop=drop)
    layers = {
        path: (target, _converted(target, rank, dtype)) for path, target in changes.targets.items()
    }
    full = [path for path, (_, factors) in layers.items() if factors is None]
    if full:
        raise AdapterError(
            f"{changes.origin.name} has changes of full rank, at {', '.join(full[:_SHOWN])}"
            + (f" and {len(full) - _SHOWN} more layers" if len(full) > _SHOWN else "")
            + ", which a plain LoRA can only approximate.",
            hint="Choose a rank: rank=32.",
        )
    kept = {path: (target, factors) for path, (target, factors) in layers.items() if factors}
    command = "lora convert" + (f" --rank {rank}" if rank else "")
    return made(model, kept, [changes], command)


@torch.no_grad()
def resize(
    file: str | os.PathLike[str],
    model: Model,
    rank: int | None = None,
    energy: float | None = None,
    *,
    dtype: torch.dtype | None = None,
    drop: bool = False,
) -> PlainLora:
    """Makes a plain LoRA of a lower rank, by singular value decomposition of each change.

    Args:
        file: A safetensors file of any method, or a folder that PEFT saved.
        model: The model that the file is for, as in `convert`.
        rank: The greatest rank of a layer.
        energy: The share of each change's squared norm to keep, above 0 and at most 1; each layer
            gets the least rank for it, `rank` at most.
        dtype: The dtype of the weights; float32 by default.
        drop: Whether to leave out changes that a plain LoRA cannot carry.

    Raises:
        WeightsError: The file is unreadable, not a LoRA, or for another base.
        AdapterError: Neither a rank nor an energy is given or one is out of range, a plain LoRA
            cannot carry a change, or the model lacks the weights on which a change depends.
    """
    if rank is None and energy is None:
        raise AdapterError("a new size is missing.", hint="Try rank=8, or energy=0.9.")
    rank = None if rank is None else checked_rank(rank)
    energy = None if energy is None else checked_share("energy", energy)
    changes = read_changes(file, model)
    refuse_dropped([changes], drop=drop)
    layers = {
        path: (target, _resized(target, rank, energy, dtype))
        for path, target in changes.targets.items()
    }
    options = (("rank", rank), ("energy", energy))
    command = "".join(f" --{name} {value}" for name, value in options if value is not None)
    return made(model, layers, [changes], f"lora resize{command}")


def nearest(target: Target, rank: int, dtype: torch.dtype | None) -> Factors:
    """Returns the factors of a rank that are nearest to a change.

    Args:
        target: The change.
        rank: The greatest rank.
        dtype: The dtype of the factors; None for float32.
    """
    return target.factored(*target.spectrum().factors(rank), dtype)


def _resized(
    target: Target, rank: int | None, energy: float | None, dtype: torch.dtype | None
) -> Factors:
    spectrum = target.spectrum()
    ranks = [rank] if rank is not None else []
    ranks += [spectrum.rank_of_energy(energy)] if energy is not None and spectrum.rank else []
    least = min(ranks, default=1)
    return target.factored(*spectrum.factors(least), dtype)


def _converted(target: Target, rank: int | None, dtype: torch.dtype | None) -> Factors | None:
    """Returns the factors of a change; None if it has no low rank and no rank is given."""
    written = target.written
    if written is not None and (rank is None or written.rank <= rank):
        down, up = written.down, written.up
        return written if dtype is None else Factors(down.to(dtype), up.to(dtype), written.alpha)
    if target.product is not None and rank is None:
        return target.factored(*target.product, dtype)
    spectrum = target.spectrum()
    if rank is None and not _is_smaller(target, spectrum):
        return None
    return target.factored(*spectrum.factors(rank or spectrum.rank), dtype)


def _is_smaller(target: Target, spectrum: Spectrum) -> bool:
    """Whether the factors of a change have fewer numbers than the change itself."""
    outputs, inputs = target.matrix_shape
    return spectrum.rank * (outputs + inputs) < outputs * inputs
