"""What adapters are made from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refiners_core.tree.chain import Chain


@dataclass(frozen=True)
class Source:
    """What an adapter is made from: verified files and the settings that its manifest gives with
    them."""

    files: Mapping[str, Path]
    """Paths by the names that the manifest gives them; the main one is `weights`."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Facts that the files do not tell, such as the number of attention heads."""
    variant: str = ""
    """What the source is for, for messages: `sd15`, say."""


Weights = Callable[[Chain], Source]
"""Chooses the source that suits a model; what a registry passes."""
