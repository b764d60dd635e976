"""The error of a configuration: all of its faults, with their lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from refiners.manifest.explain import ManifestFault

from refiners_core.errors import RefinersError


class ConfigError(RefinersError):
    """A configuration cannot be trained; nothing was loaded or written.

    Args:
        path: The file; None for a configuration that Python made.
        faults: All faults.
    """

    code: ClassVar[str] = "training-config"
    exit_code: ClassVar[int] = 2

    def __init__(self, path: Path | None, faults: Sequence[ManifestFault]) -> None:
        self.path: Final = path
        self.faults: Final = tuple(faults)
        where = "the configuration" if path is None else str(path)
        count = f"{len(faults)} fault{'s' * (len(faults) != 1)}"
        lines = "\n".join(f"  {fault}" for fault in faults)
        super().__init__(
            f"{where} has {count}:\n{lines}",
            hint="Mend them, or begin with one that works: refiners train init lora.",
        )
