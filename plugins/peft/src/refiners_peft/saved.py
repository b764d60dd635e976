"""Adapters from PEFT's files, saved as PEFT does: weights, and a configuration beside them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Never, Self

from refiners_core import Adapter, Source
from refiners_core.errors import AdapterError
from refiners_core.models.decoder import LanguageModel
from refiners_core.weights import write
from refiners_peft.base_copy import without_copies
from refiners_peft.peft_file import CONFIG, PeftFile, read_peft


class Saved(Adapter):
    """Reads and writes weights with PEFT's configuration beside them.

    Args:
        options: The arguments of every adapter: `weights`, `name`, `key`.
    """

    config: Mapping[str, Any] | None = None
    """PEFT's configuration; None before the first inject."""

    def read(self, source: Source | None, model: LanguageModel, *methods: str) -> PeftFile:
        """Reads the file of the adapter and keeps its configuration.

        Args:
            source: The files.
            model: The model that the adapter goes on.
            methods: The methods that are read, as PEFT names them.

        Raises:
            AdapterError: No files are given.
            WeightsError: The file cannot be read as one of these methods.
        """
        if source is None:
            raise AdapterError(
                f"{self.key} needs a file.",
                hint=f'Try refiners.load_adapter("{self.name}", model, file="./folder").',
            )
        file = without_copies(read_peft(source, *methods), model)
        self.config = {"peft_type": file.method, **file.config}
        return file

    def hotswap(self, other: Adapter) -> Self:
        """Swaps weights and configurations with another adapter, and returns itself.

        Raises:
            AdapterError: The adapters differ in more than the values of weights; nothing was
                changed.
            PlanError: A tree that wears either adapter is running; nothing was changed.
        """
        super().hotswap(other)
        if isinstance(other, Saved):
            self.config, other.config = other.config, self.config
        return self

    def save(self, path: str | Path) -> None:
        """Writes the weights, and the configuration as `adapter_config.json` into their folder.

        Raises:
            AdapterError: The adapter has not been on a model yet, or the folder has another
                configuration.
            WeightsError: The file cannot be written.
        """
        beside = Path(path).with_name(CONFIG)
        published = self.published()
        if beside.is_file() and json.loads(beside.read_text("utf-8")) != self.config:
            raise AdapterError(
                f"{beside} is the configuration of another adapter.",
                hint=f"Save to a folder of its own, such as {Path(self.key) / Path(path).name}.",
            )
        write(published, path)
        beside.write_text(json.dumps(self.config, indent=2, sort_keys=True), "utf-8")

    def missing(self) -> Never:
        """Fails, in place of a layer that `build` has made."""
        raise AssertionError("layers are made in build()")
