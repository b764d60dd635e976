"""Errors of training data."""

from collections.abc import Sequence
from typing import ClassVar

from refiners_core.errors import RefinersError


class DataError(RefinersError):
    """Training data cannot be read, or are not what the training needs."""

    code: ClassVar[str] = "training-data"
    exit_code: ClassVar[int] = 2


def listed(faults: Sequence[str], most: int = 20) -> str:
    """Returns faults as indented lines, of which the last counts those left out."""
    lines = [f"  {fault}" for fault in faults[:most]]
    if len(faults) > most:
        lines.append(f"  and {len(faults) - most} more")
    return "\n".join(lines)
