"""Trains adapters on frozen bases: a configuration in, a published file with its manifest out.

Importing this package loads no torch; each name is imported on first use.
"""

from typing import TYPE_CHECKING, Any, Final

from refiners_core.public import lazy_attribute

if TYPE_CHECKING:
    from refiners_train.config.error import ConfigError as ConfigError
    from refiners_train.config.reader import load_config as load_config
    from refiners_train.config.schema import Config as Config
    from refiners_train.data.batch import Batch as Batch
    from refiners_train.data.example import Example as Example
    from refiners_train.data.example import Source as Source
    from refiners_train.data.example import TextExample as TextExample
    from refiners_train.training import train as train

_HOMES: Final[dict[str, str]] = {
    "Batch": "data.batch",
    "Config": "config.schema",
    "ConfigError": "config.error",
    "Example": "data.example",
    "Source": "data.example",
    "TextExample": "data.example",
    "load_config": "config.reader",
    "train": "training",
}

__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return sorted([*(name for name in globals() if name.startswith("__")), *__all__])
