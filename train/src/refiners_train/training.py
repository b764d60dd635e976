"""`train`: from a configuration to a published file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import refiners
import torch

from refiners_core import Adapter
from refiners_train.config.reader import load_config
from refiners_train.config.schema import Config
from refiners_train.data.loading import loaded, places
from refiners_train.data.reference import load_source
from refiners_train.engine.checkpoint import read_checkpoint, write_checkpoint
from refiners_train.engine.device import build_accelerator
from refiners_train.engine.learner import Learners, base_weights, digest
from refiners_train.engine.log import Log
from refiners_train.engine.loop import Loop
from refiners_train.engine.objective_table import build_objective


def train(
    config: Config | str | Path,
    *,
    device: str | None = None,
    fresh: bool = False,
    progress: bool = True,
    callback: Callable[[int, Loop], Any] | None = None,
) -> Path:
    """Trains an adapter and returns the folder of the run, with the published file.

    A run that was interrupted goes on from its last checkpoint, with the numbers that it would
    have had without the interruption.

    Args:
        config: A configuration, or the path of a training file.
        device: `cpu`, `cuda` or `mps`; by default the best of this machine.
        fresh: Whether to begin anew although the folder has a checkpoint.
        progress: Whether a progress bar is shown.
        callback: Called after each step with the number of steps so far and the loop.

    Raises:
        ConfigError: The configuration has faults; nothing was loaded or written.
        ResumeError: The checkpoint in the folder is of another run.
        RefinersError: The base, the adapter or the data cannot be loaded.
    """
    if not isinstance(config, Config):
        config = load_config(config)
    accelerator = build_accelerator(device, config.train.precision)
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.train.seed)
    dtype = config.base.dtype or config.train.precision
    model = refiners.load_model(config.base.model, device=accelerator.device, dtype=dtype)
    base = base_weights(model.eval())
    adapter = refiners.load_untrained(config.adapter.name, model, **config.adapter.options)
    learners = Learners(base, adapter.eval())
    frozen = digest(learners.frozen)
    source = load_source(
        config.data.source, config.data.options, model=model, seed=config.train.seed
    )
    objective = build_objective(model, adapter, config)
    loop = Loop(accelerator, learners, objective, config.train)
    run = {**_settings(config), "base": frozen, "examples": source.fingerprint}
    state = None if fresh else read_checkpoint(folder, run)
    if state is not None:
        loop.load_state_dict(state["loop"])
    log = Log(
        folder, config.train.steps, loop.step, is_main=accelerator.is_main_process, has_bar=progress
    )
    order = places(
        source,
        config.train.batch,
        seed=config.train.seed,
        first=loop.batches,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
    )

    def after(step: int, loop: Loop) -> None:
        log.advance(step)
        if step % config.log.every == 0 or step == config.train.steps:
            log.write(step, loss=loop.loss.item(), rate=loop.optimiser.param_groups[0]["lr"])
        is_due = step % config.train.checkpoint_every == 0 or step == config.train.steps
        if is_due and accelerator.is_main_process:
            write_checkpoint(folder, {"run": run, "loop": loop.state_dict()})
        if callback is not None:
            callback(step, loop)

    loop.run(loaded(source, order, config.data.workers), after)
    log.close()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if loop.average is not None:
            loop.average.copy_in()
        assert digest(learners.frozen) == frozen, "training changed the frozen base"
        _publish(adapter, learners, config, folder)
    accelerator.wait_for_everyone()
    return folder


def _settings(config: Config) -> dict[str, Any]:
    """Returns the settings on which the numbers of a run depend, by their path in the file."""
    tables: dict[str, Any] = msgspec.to_builtins(config)
    parts = {name: tables[name] for name in ("base", "adapter", "data", "train")}
    parts["data"].pop("workers")
    parts["train"].pop("checkpoint-every")
    return {f"{table}.{key}": value for table, keys in parts.items() for key, value in keys.items()}


def _publish(adapter: Adapter, learners: Learners, config: Config, folder: Path) -> None:
    name = config.result.file or f"{folder.name}.safetensors"
    for module in learners.modules:
        module.to(getattr(torch, config.result.dtype))
    adapter.save(folder / name)
