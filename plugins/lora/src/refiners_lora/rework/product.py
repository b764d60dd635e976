"""A plain LoRA that was made of files or models, and its errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from refiners_core import Model
from refiners_core.errors import AdapterError
from refiners_lora.rework.layout import LAYOUTS, written
from refiners_lora.rework.model_spec import notes
from refiners_lora.rework.source import Changes, Dropped, Origin
from refiners_lora.rework.target import Factors, Target


class LayerError(NamedTuple):
    """The distance of a layer's update from the exact change."""

    path: str
    """The path of the layer."""
    group: str
    """The component and the kind of layer, such as `unet attention`."""
    difference: float
    """The Frobenius norm of the difference."""
    size: float
    """The Frobenius norm of the exact change."""

    @property
    def relative(self) -> float:
        """The difference relative to the exact change; 0 where both are 0."""
        return self.difference / self.size if self.size else float(self.difference > 0)


class GroupError(NamedTuple):
    """The relative errors of a group of layers."""

    group: str
    layers: int
    worst: float
    median: float
    total: float
    """The norm of all differences relative to the norm of all exact changes."""


@dataclass(frozen=True)
class PlainLora:
    """A plain LoRA for a model, ready to be written to a file."""

    base: str
    """The base of the model."""
    layers: Mapping[str, tuple[Target, Factors]]
    """The exact change and the update of each layer, by path."""
    origins: tuple[Origin, ...]
    """The files or models of which it was made."""
    command: str
    """The command that makes it, without names of files."""
    dropped: tuple[Dropped, ...] = ()
    """The changes that it does not carry."""
    errors: tuple[LayerError, ...] = ()
    """The error of each layer."""

    @property
    def ranks(self) -> tuple[int, int]:
        """The least and the greatest rank of a layer."""
        ranks = [factors.rank for _, factors in self.layers.values()]
        return min(ranks), max(ranks)

    @property
    def groups(self) -> tuple[GroupError, ...]:
        """The errors of each group of layers, and of all."""
        names = sorted({error.group for error in self.errors})
        groups = [
            _summed(name, [error for error in self.errors if error.group == name]) for name in names
        ]
        return (*groups, _summed("all", self.errors))

    def save(
        self,
        path: str | Path,
        layout: str = "diffusers",
        *,
        title: str = "",
        force: bool = False,
    ) -> None:
        """Writes the LoRA to a file, or to a folder in PEFT's layout.

        The same inputs give the same bytes: the file has no date.

        Args:
            path: The file; in PEFT's layout the folder.
            layout: `diffusers`, `kohya` or `peft`.
            title: The title in the metadata; by default the name of the file.
            force: Whether to replace a file that exists.

        Raises:
            AdapterError: The layout is unknown, or the file exists.
            WeightsError: The file cannot be written.
        """
        target = Path(path)
        if layout not in LAYOUTS:
            raise AdapterError(
                f"{layout!r} is not a layout of LoRA files.", hint=f'Try layout="{LAYOUTS[0]}".'
            )
        if not force:
            refuse_existing(target)
        metadata = notes(self.base, title or target.stem, self.command, self.origins)
        entries = [(exact.published, factors) for exact, factors in self.layers.values()]
        written(entries, target, layout, metadata)


def refuse_existing(path: Path) -> None:
    """Refuses to replace a file, or a folder that is not empty.

    Raises:
        AdapterError: The file exists, or the folder is not empty.
    """
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise AdapterError(
            f"{path} exists, and nothing was written.",
            hint="Replace it with force=True, or name another file.",
        )


def made(
    model: Model,
    layers: Mapping[str, tuple[Target, Factors]],
    changes: Sequence[Changes],
    command: str,
) -> PlainLora:
    """Returns a plain LoRA with its errors.

    Args:
        model: The model that it is for.
        layers: The exact change and the update of each layer, by path.
        changes: The sources.
        command: The command that makes it, without names of files.

    Raises:
        AdapterError: No layer is left.
    """
    if not layers:
        raise AdapterError(
            "no layer is left of which a plain LoRA could be made.",
            hint="Give files that change weights of linear layers or convolutions.",
        )
    errors = tuple(
        LayerError(path, target.group, *_distance(target, factors))
        for path, (target, factors) in layers.items()
    )
    origins = tuple(each.origin for each in changes)
    dropped = tuple(dropped for each in changes for dropped in each.dropped)
    return PlainLora(model.base, layers, origins, command, dropped, errors)


@torch.no_grad()
def _distance(target: Target, factors: Factors) -> tuple[float, float]:
    exact = target.matrix()
    if factors is target.written:
        return 0.0, float(exact.norm())
    return float((factors.matrix() - exact).norm()), float(exact.norm())


def _summed(name: str, errors: Sequence[LayerError]) -> GroupError:
    relative = [error.relative for error in errors]
    difference = sum(error.difference**2 for error in errors) ** 0.5
    size = sum(error.size**2 for error in errors) ** 0.5
    total = difference / size if size else 0.0
    return GroupError(name, len(errors), max(relative), median(relative), total)
