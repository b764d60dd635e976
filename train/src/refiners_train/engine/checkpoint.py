"""The checkpoint of a run: everything that a resumed run needs to go on bit for bit."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from refiners_core.errors import RefinersError

FILE: Final = "checkpoint.pt"


class ResumeError(RefinersError):
    """A checkpoint belongs to another run; nothing was changed."""

    code = "training-resume"
    exit_code = 2


def write_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint; the previous one stays until the new one is complete."""
    part = folder / f".{FILE}.part"
    with part.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / FILE)


def read_checkpoint(folder: Path, run: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the last checkpoint of a folder; None without one.

    Args:
        folder: The output folder.
        run: The facts that must be those of the checkpoint: the settings, the hashes.

    Raises:
        ResumeError: The checkpoint is of a run with other facts.
    """
    path = folder / FILE
    if not path.exists():
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    before: dict[str, Any] = state["run"]
    differing = [name for name in {**before, **run} if before.get(name) != run.get(name)]
    if differing:
        listed = "\n".join(
            f"  {name}: {before.get(name)!r} then, {run.get(name)!r} now" for name in differing
        )
        raise ResumeError(
            f"{path} was written by a run that differs from this one:\n{listed}",
            hint="Restore these values, name another output, or begin anew with --fresh.",
        )
    return state
