"""The plan of a training, which `--dry-run` prints: sizes, steps and files, without weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor

from refiners_train.assembly import Assembly
from refiners_train.config.schema import Config
from refiners_train.data.batch import Batch
from refiners_train.data.loading import rows_of
from refiners_train.data.order import length
from refiners_train.engine.checkpoint import FILE as CHECKPOINT
from refiners_train.engine.log import FILE as LOG
from refiners_train.engine.result import MANIFEST, name_of
from refiners_train.engine.sample import FOLDER as SAMPLES

_FLOAT: Final = 4
"""The bytes of a trained number."""


@dataclass(frozen=True)
class Plan:
    """The sizes of a training, its steps, and what it writes."""

    frozen: int
    """The number of frozen numbers, those of encoders included."""
    trained: int
    """The number of trained numbers."""
    examples: int
    """The number of examples that are trained on."""
    held_out: int
    """The number of examples that are held out."""
    steps: int
    """The number of steps."""
    per_epoch: int
    """The number of steps of an epoch."""
    memory: int
    """The estimated bytes of weights, gradients, state of the optimiser and activations."""
    activations: int | None
    """The part of these that one part of a batch keeps for the backward pass; None if unknown."""
    written: tuple[Path, ...]
    """The files and folders that the training writes."""

    @property
    def epochs(self) -> float:
        """The number of epochs."""
        return self.steps / self.per_epoch

    @classmethod
    def of(cls, config: Config) -> Self:
        """Returns the plan of a configuration.

        Args:
            config: The configuration.

        Raises:
            RefinersError: A part cannot be built, or the examples cannot be opened.
        """
        assembly = Assembly.outline(config)
        learners, train, folder = assembly.learners, config.train, Path(config.output)
        # Gradients, two means of AdamW or the momentum of Muon, and the running mean.
        copies = 2 + (1 if train.optimiser == "muon" else 2) + bool(train.average)
        frozen = sum(w.numel() * w.element_size() for w in learners.frozen.values())
        activations = _activations(assembly)
        name = name_of(config, folder)
        written = [
            assembly.adapter.saved_path(folder, name),
            *(folder / file for file in (MANIFEST, LOG, CHECKPOINT)),
        ]
        if config.log.samples is not None:
            written.append(folder / SAMPLES)
        return cls(
            frozen=sum(weight.numel() for weight in learners.frozen.values()),
            trained=learners.count,
            examples=len(assembly.source),
            held_out=0 if assembly.held_out is None else len(assembly.held_out),
            steps=train.steps,
            per_epoch=length(assembly.source, train.batch),
            memory=frozen + learners.count * _FLOAT * copies + (activations or 0),
            activations=activations,
            written=tuple(written),
        )


def _activations(assembly: Assembly) -> int | None:
    """Returns the bytes that the forward pass of one part of a batch keeps for the backward pass.

    The pass runs on the meta device, with one row; None for batches of another kind.
    """
    batch: Any = rows_of(assembly.source, [0], 0)
    if not isinstance(batch, Batch):
        return None
    kept: dict[int, int] = {}
    weights = {id(w) for w in (*assembly.learners.weights, *assembly.learners.frozen.values())}

    def pack(tensor: Tensor) -> Tensor:
        if id(tensor) not in weights:
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage.nbytes()
        return tensor

    drawn = assembly.objective.draw(batch, 1, torch.Generator("cpu"))
    meta = torch.device("meta")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        sums = assembly.objective.sums(batch.to(meta), drawn)
    del sums
    train = assembly.config.train
    return sum(kept.values()) * -(-train.batch // train.accumulation)
