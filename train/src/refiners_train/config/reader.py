"""Reads a configuration; all of its faults are reported at once, each with its line."""

from __future__ import annotations

from pathlib import Path

import msgspec
from refiners.manifest.explain import ManifestFault, examine, with_lines
from refiners.manifest.toml import TomlError, load_toml

from refiners_train.config.check import faults_of
from refiners_train.config.error import ConfigError
from refiners_train.config.schema import Config


def load_config(path: str | Path) -> Config:
    """Reads a training file.

    Args:
        path: The TOML file.

    Raises:
        ConfigError: The file is missing, is not TOML, or has faults; all are listed.
    """
    path = Path(path)
    try:
        table, text = load_toml(path)
    except TomlError as error:
        raise ConfigError(path, [ManifestFault((), str(error))]) from error
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        raise ConfigError(path, [ManifestFault((), reason)]) from error
    try:
        config = msgspec.convert(table, Config)
    except msgspec.ValidationError:
        table, faults = examine(table, Config)
        if faults:
            raise ConfigError(path, with_lines(faults, text)) from None
        config = msgspec.convert(table, Config)
    if faults := faults_of(config):
        raise ConfigError(path, with_lines(faults, text))
    return config


def checked(config: Config) -> Config:
    """Returns a configuration that Python made, if what it names exists.

    Raises:
        ConfigError: The configuration has faults; all are listed.
    """
    if faults := faults_of(config):
        raise ConfigError(None, faults)
    return config
