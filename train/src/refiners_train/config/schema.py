"""The form of a configuration: what a training file may say, in TOML."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from refiners.manifest.pattern import REPOSITORY
from refiners.manifest.term import END, WORDS

Count = Annotated[int, Meta(ge=1, description="a whole number from 1")]
Whole = Annotated[int, Meta(ge=0, description="a whole number from 0")]
Share = Annotated[float, Meta(ge=0, le=1, description="a share in 0...1")]
Rate = Annotated[float, Meta(gt=0, description="a number above 0")]
Amount = Annotated[float, Meta(ge=0, description="a number from 0")]
Text = Annotated[str, Meta(min_length=1, description="a text that is not empty")]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """A table of the file."""


class Base(_Table, frozen=True, kw_only=True):
    """The base model, which stays frozen."""

    model: Text
    """A name, a folder, a file, or `hf:organisation/name@commit`."""
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """The dtype of the frozen weights; by default that of `precision`."""


class Adapter(_Table, frozen=True, kw_only=True):
    """The adapter that is trained."""

    name: Text
    """The name of an installed adapter, such as `lora`."""
    options: dict[str, Any] = {}
    """The arguments of its constructor."""


class Data(_Table, frozen=True, kw_only=True):
    """The examples, and what is left out of them."""

    source: Text
    """`package.module:function` that returns a `Source`, or `folder:`, `hf:` and `wds:` sources."""
    options: dict[str, Any] = {}
    """The keyword arguments of the source."""
    text_dropped: Share = 0.0
    """The share of examples that are trained with an empty prompt, for guidance."""
    condition_dropped: Share = 0.0
    """The share of examples that are trained with the condition of the unconditional branch."""
    held_out: Whole = 0
    """The number of examples at the end of the source that are not trained on."""
    workers: Whole = 0
    """The number of processes that prepare batches; 0 for none beside the training."""


class Distillation(_Table, frozen=True, kw_only=True):
    """The teacher of the objective `consistency`."""

    grid: Annotated[int, Meta(ge=1, le=1000, description="a whole number in 1...1000")] = 50
    """The number of timesteps between which the teacher steps, evenly spaced."""
    guidance: tuple[Amount, Amount] = (3.0, 15.0)
    """The lowest and the highest scale of guidance, drawn evenly for each example."""


class Train(_Table, frozen=True, kw_only=True):
    """The training itself."""

    steps: Count
    """The number of steps of the optimiser."""
    batch: Count
    """The number of examples of a step, of all processes together."""
    accumulation: Count = 1
    """The number of parts of a batch that each process runs one after the other, to save memory."""
    seed: Whole = 0
    """The seed of initial values, order, noise, timesteps and dropping."""
    objective: Literal["diffusion", "consistency", "causal"] = "diffusion"
    """The loss: `diffusion`, `consistency` for a sampler of few steps, or `causal` for a language
    model."""
    distillation: Distillation = Distillation()
    """The teacher of `consistency`."""
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    """The dtype of the computation; the trained weights are float32 in any case."""
    optimiser: Literal["adamw", "muon"] = "adamw"
    """AdamW for all weights, or Muon for matrices and kernels and AdamW for the rest."""
    learning_rate: Rate = 1e-4
    """The highest learning rate; of Muon for matrices."""
    other_learning_rate: Rate | None = None
    """Beside Muon, the learning rate of all that is not a matrix; by default `learning-rate`."""
    betas: tuple[Share, Share] = (0.9, 0.99)
    """The decay of the two means of AdamW."""
    weight_decay: Amount = 0.0
    """The share of each weight that a step of learning rate 1 would take off."""
    clip: Amount = 1.0
    """The greatest norm of the gradients of all weights together; 0 leaves them as they are."""
    warm_up: Whole = 0
    """The number of steps in which the learning rate rises to its highest value."""
    hold: Share = 0.4
    """The share of the steps after which the learning rate falls, linearly."""
    floor: Share = 0.02
    """The share of the highest learning rate at the end."""
    average: Annotated[float, Meta(ge=0, lt=1, description="a share in 0...1, below 1")] = 0.0
    """The decay of the running mean of the weights that is saved in their place; 0 for none."""
    timesteps: Literal["uniform", "shapes"] = "uniform"
    """How training steps are drawn: evenly, or three quarters of them where shapes are decided."""
    snr_gamma: Rate | None = None
    """The limit of min-SNR weighting (arXiv:2303.09556), such as 5; none by default."""
    prior_weight: Amount = 1.0
    """The weight of the loss of prior examples."""
    gradient_checkpointing: bool = False
    """Whether blocks of the base are computed twice, to save memory."""
    checkpoint_every: Count = 500
    """The number of steps between two checkpoints; a slow training also writes one every two
    minutes."""


class Samples(_Table, frozen=True, kw_only=True):
    """Pictures of fixed prompts and seeds, drawn while training, as one PNG each time."""

    every: Count = 250
    """The number of steps between two drawings."""
    prompts: tuple[Text, ...] = ()
    """The prompts, for an adapter without a condition; by default those of examples."""
    count: Count = 4
    """The number of examples whose prompts and conditions are drawn, without `prompts`: of those
    that are held out, else the first ones."""
    seed: Whole = 0
    """The seed of the first picture; the i-th has i more."""
    steps: Count = 30
    """The number of steps of the sampler."""
    guidance: Amount = 7.5
    """The scale of guidance."""
    sampler: str | None = None
    """The name of the sampler; by default that of the base."""


class Log(_Table, frozen=True, kw_only=True):
    """The records of a training while it runs."""

    every: Count = 50
    """The number of steps between two entries of the log."""
    measure_every: Count = 250
    """The number of steps between two measurements of the loss of held-out examples."""
    tensorboard: bool = False
    """Whether figures are also written for TensorBoard, to `tensorboard/` in the output."""
    samples: Samples | None = None
    """Pictures that are drawn while training; none by default."""


class Result(_Table, frozen=True, kw_only=True):
    """The published file."""

    name: Annotated[
        str, Meta(pattern=f"^({WORDS})?{END}", description="lower-case words joined by hyphens")
    ] = ""
    """The name of the file and of the adapter in its manifest; by default that of the output."""
    title: str = ""
    """The title in its metadata; by default the name."""
    trigger: str = ""
    """The words in a prompt that bring about what was trained, for its metadata."""
    author: str = ""
    """Its author, for its metadata."""
    license: str = ""
    """Its licence, an SPDX expression."""
    repository: Annotated[
        str, Meta(pattern=f"^({REPOSITORY})?{END}", description='"organisation/name"')
    ] = ""
    """The repository on the Hub that the manifest names."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    """The dtype of its weights."""


class Config(_Table, frozen=True, kw_only=True):
    """A training."""

    output: Text
    """The folder of the run: checkpoint, log, result."""
    base: Base
    adapter: Adapter
    data: Data
    train: Train
    log: Log = Log()
    result: Result = Result()
