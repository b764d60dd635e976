"""`train`: from a configuration to a published file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from accelerate import Accelerator

from refiners_core.errors import WeightsError
from refiners_train.assembly import Assembly
from refiners_train.config.reader import checked, load_config
from refiners_train.config.schema import Config
from refiners_train.data.loading import loaded, places
from refiners_train.engine.checkpoint import read_checkpoint, write_checkpoint
from refiners_train.engine.device import build_accelerator
from refiners_train.engine.held_out import held_out_loss
from refiners_train.engine.learner import digest
from refiners_train.engine.log import Log
from refiners_train.engine.loop import Loop
from refiners_train.engine.model_spec import base_files
from refiners_train.engine.result import publish
from refiners_train.engine.sample import Sampler

LONGEST: Final = 120.0
"""The greatest number of seconds between two checkpoints, if a step takes less."""


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
    config = checked(config) if isinstance(config, Config) else load_config(config)
    accelerator = build_accelerator(device, config.train.precision)
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    assembly = Assembly.load(config, accelerator.device)
    learners = assembly.learners
    frozen = digest(learners.frozen)
    run = {
        **settings_of(config),
        "files of the base": base_files(assembly.model),
        "frozen weights": frozen,
        "examples": assembly.source.fingerprint,
    }
    loop = Loop(accelerator, learners, assembly.objective, config.train)
    state = None if fresh else read_checkpoint(folder, run)
    if state is not None:
        loop.load_state_dict(state["loop"])
    order = places(
        assembly.source,
        config.train.batch,
        seed=config.train.seed,
        first=loop.batches,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    with _After(config, assembly, loop, run, folder, has_bar=progress) as after:

        def each(step: int, loop: Loop) -> None:
            after(step)
            if callback is not None:
                callback(step, loop)

        loop.run(loaded(assembly.source, order, config.data.workers), each)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if digest(learners.frozen) != frozen:
            raise WeightsError(
                f"the training changed weights of {assembly.model.base} that are frozen.",
                hint="Report this to the author of the adapter; nothing was published.",
            )
        if loop.average is not None:
            loop.average.copy_in()
        publish(config, assembly.model, learners, folder)
    accelerator.wait_for_everyone()
    return folder


def settings_of(config: Config) -> dict[str, Any]:
    """Returns the settings on which the numbers of a run depend, by their path in the file."""
    tables: dict[str, Any] = msgspec.to_builtins(config)
    parts = {name: dict(tables[name]) for name in ("base", "adapter", "data", "train")}
    parts["data"].pop("workers")
    parts["train"].pop("checkpoint-every")
    return {f"{table}.{key}": value for table, keys in parts.items() for key, value in keys.items()}


class _After:
    """The work between two steps: log, measurement, pictures, checkpoint."""

    def __init__(
        self,
        config: Config,
        assembly: Assembly,
        loop: Loop,
        run: dict[str, Any],
        folder: Path,
        *,
        has_bar: bool,
    ) -> None:
        self.config = config
        self.assembly = assembly
        self.loop = loop
        self.run = run
        self.folder = folder
        self.saved = time.monotonic()
        accelerator: Accelerator = loop.accelerator
        self.is_main = accelerator.is_main_process
        self.log = Log(
            folder,
            config.train.steps,
            loop.step,
            is_main=self.is_main,
            has_bar=has_bar,
            tensorboard=config.log.tensorboard,
        )
        self.sampler: Sampler | None = None
        if config.log.samples is not None and self.is_main:
            model: Any = assembly.model
            examples = assembly.source if assembly.held_out is None else assembly.held_out
            self.sampler = Sampler(model, assembly.adapter, config.log.samples, examples, folder)

    def __enter__(self) -> _After:
        return self

    def __exit__(self, *error: object) -> None:
        self.log.close()

    def __call__(self, step: int) -> None:
        """Does what is due after a step."""
        self.log.advance(step)
        if not self.is_main:
            return
        config, loop = self.config, self.loop
        is_last = step == config.train.steps
        if step % config.log.every == 0 or is_last:
            rate = loop.optimiser.param_groups[0]["lr"]
            self.log.write(step, loss=loop.loss.item(), rate=rate)
        held_out = self.assembly.held_out
        if held_out is not None and (step % config.log.measure_every == 0 or is_last):
            self.log.write(step, held_out=held_out_loss(loop, held_out))
        samples = config.log.samples
        if samples is not None and (step % samples.every == 0 or is_last):
            assert self.sampler is not None, "built with the samples"
            self.sampler.draw(step, loop.average)
        is_due = time.monotonic() - self.saved > LONGEST
        if step % config.train.checkpoint_every == 0 or is_due or is_last:
            write_checkpoint(self.folder, {"run": self.run, "loop": loop.state_dict()})
            self.saved = time.monotonic()
