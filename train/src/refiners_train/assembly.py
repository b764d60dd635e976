"""The parts of a training, loaded and joined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import refiners
import torch
from refiners.load import outline

from refiners_core import Adapter, Model
from refiners_train.config.schema import Config
from refiners_train.data.part import parted
from refiners_train.data.reference import load_source
from refiners_train.engine.learner import Learners, base_weights
from refiners_train.engine.objective import Objective
from refiners_train.engine.objective_table import build_objective


@dataclass(frozen=True)
class Assembly:
    """A frozen base with an untrained adapter, and the examples that it is trained on."""

    config: Config
    model: Model
    adapter: Adapter
    learners: Learners
    objective: Objective
    source: Any
    """The examples that are trained on."""
    held_out: Any
    """Those that are not; None without any."""

    @classmethod
    def load(cls, config: Config, device: torch.device) -> Self:
        """Loads the base, begins the adapter, and opens the examples.

        Args:
            config: The configuration.
            device: The device of the training.

        Raises:
            RefinersError: A file cannot be read, or does not fit.
        """
        dtype = config.base.dtype or config.train.precision
        torch.manual_seed(config.train.seed)  # the first values of the adapter
        return cls._of(config, refiners.load_model(config.base.model, device=device, dtype=dtype))

    @classmethod
    def outline(cls, config: Config) -> Self:
        """Builds the same without weights, on the meta device; nothing is fetched but small files.

        Args:
            config: The configuration.

        Raises:
            RefinersError: A part cannot be built, or the examples cannot be opened.
        """
        model = outline(config.base.model)
        return cls._of(
            config, model.to(getattr(torch, config.base.dtype or config.train.precision))
        )

    @classmethod
    def _of(cls, config: Config, model: Model) -> Self:
        base = base_weights(model.eval())
        adapter = refiners.load_untrained(config.adapter.name, model, **config.adapter.options)
        if config.train.gradient_checkpointing:
            model.checkpoint_blocks()
        learners = Learners(base, adapter.eval())
        objective = build_objective(model, adapter, config)
        opened = load_source(
            config.data.source, config.data.options, model=model, seed=config.train.seed
        )
        source, held_out = parted(opened, config.data.held_out)
        return cls(config, model, adapter, learners, objective, source, held_out)
