"""The source of an adapter: its files, settings and advice."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refiners_core.advice import Advice
from refiners_core.tree.chain import Chain


@dataclass(frozen=True)
class Source:
    """The verified files that an adapter is built from, and their settings in the manifest."""

    files: Mapping[str, Path]
    """The paths of the files, by their names in the manifest; the main one is `weights`."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The values that the files do not contain, such as the number of attention heads."""
    variant: str = ""
    """The name of the variant for messages, such as `sd15`."""
    advice: Advice | None = None
    """The advice in the manifest for this variant; None without any."""


Weights = Callable[[Chain], Source]
"""A function that returns the source for a model; a registry passes one to each adapter."""
