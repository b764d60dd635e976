"""Training files to begin with: commented, and running as they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from refiners.errors import OptionError

PLAYGROUND: Final = "playground"


@dataclass(frozen=True)
class Beginning:
    """The values with which a training file of a kind of adapter begins."""

    adapter: str
    """The name of the adapter."""
    lesson: str
    """The source of the playground, in `refiners_playground.lesson`."""
    what: str
    """A sentence about what is trained."""
    options: str = ""
    """The arguments of the adapter, as TOML."""
    condition: str = ""
    """The option of a folder of pictures for the conditions, as TOML."""
    text_dropped: float = 0.1
    condition_dropped: float = 0.0
    rate: str = "1e-3"
    """The learning rate."""
    objective: str = "diffusion"
    on_playground: str = ""
    """The name of the adapter for the playground, if it differs."""

    def adapter_for(self, base: str) -> str:
        """Returns the name of the adapter for a base."""
        return (base == PLAYGROUND and self.on_playground) or self.adapter


_INK: Final = "A {} of a style: what the pictures have in common, for every prompt."
_EDGES: Final = ' conditions = { "" = "edges" },'
_PICTURE: Final = ' conditions = { "" = "picture" },'

BEGINNINGS: Final[dict[str, Beginning]] = {
    **{
        name: Beginning(
            "lora", "inked", _INK.format(title), f'{{ method = "{name}", rank = {rank} }}'
        )
        for name, title, rank in (
            ("lora", "LoRA", 16),
            ("dora", "DoRA", 16),
            ("loha", "LoHa", 8),
            ("lokr", "LoKr", 8),
            ("oft", "OFT", 16),
            ("ia3", "IA3", 1),
        )
    },
    "lcm-lora": Beginning(
        "lora",
        "known",
        "An LCM-LoRA: the base draws in 4 steps of the sampler lcm, without guidance.",
        "{ rank = 32 }",
        text_dropped=0.0,
        rate="5e-4",
        objective="consistency",
    ),
    "textual-inversion": Beginning(
        "textual-inversion",
        "worded",
        "A word: prompts with it show what the pictures have in common.",
        '{ word = "<harlequin>", vectors = 4 }',
        text_dropped=0.0,
        rate="5e-3",
    ),
    "controlnet": Beginning(
        "controlnet",
        "edged",
        "A ControlNet: pictures follow edges.",
        condition=_EDGES,
        text_dropped=0.3,
    ),
    "control-lora": Beginning(
        "control-lora",
        "edged",
        "A Control-LoRA: pictures follow edges, by a low-rank change of the base.",
        "{ rank = 24 }",
        _EDGES,
        text_dropped=0.3,
    ),
    "t2i-adapter": Beginning(
        "t2i-adapter",
        "edged",
        "A T2I-Adapter: pictures follow edges.",
        condition=_EDGES,
        text_dropped=0.3,
        on_playground="t2i-canny",
    ),
    "ip-adapter": Beginning(
        "ip-adapter",
        "pictured",
        "An IP-Adapter: prompts with a picture.",
        condition=_PICTURE,
        text_dropped=0.05,
        condition_dropped=0.1,
    ),
    "palette": Beginning(
        "palette",
        "coloured",
        "A palette adapter: prompts with colours.",
        condition=_PICTURE,
        text_dropped=0.3,
        condition_dropped=0.1,
    ),
}
"""The kinds by name."""
KINDS: Final = tuple(BEGINNINGS)


def write_template(
    kind: str, base: str, path: Path, *, steps: int | None = None, force: bool = False
) -> Path:
    """Writes a training file and returns its path.

    Args:
        kind: A name in `KINDS`.
        base: The name of the base.
        path: The file.
        steps: The number of steps; by default as many as a training may take.
        force: Whether an existing file is replaced.

    Raises:
        OptionError: The file exists, or cannot be written.
        RefinersError: The adapter or the base is not installed, or the one does not suit the other.
    """
    from refiners_train.config.check import check_pair

    beginning = BEGINNINGS[kind]
    check_pair(beginning.adapter_for(base), base)
    if path.exists() and not force:
        raise OptionError(f"{path} exists already.", hint="Pass --force, or another --out.")
    try:
        path.write_text(template(kind, base, path.stem, steps), "utf-8")
    except OSError as error:
        raise OptionError(
            f"{path} cannot be written: {error.strerror}.", hint="Pass another --out."
        ) from error
    return path


def template(kind: str, base: str, name: str, steps: int | None = None) -> str:
    """Returns the text of a training file.

    Args:
        kind: A name in `KINDS`.
        base: The name of the base.
        name: The name of the output.
        steps: The number of steps; by default as many as a training may take.
    """
    beginning = BEGINNINGS[kind]
    if base == PLAYGROUND:
        source = (
            f'source = "refiners_playground.lesson:{beginning.lesson}"  # or "folder:./pictures"\n'
            "options = { count = 512 }"
        )
        usual, batch = 300, 16
    else:
        source = (
            'source = "folder:./pictures"  # a.png with its caption in a.txt\n'
            f"options = {{{beginning.condition} flip = 0.5 }}"
        )
        usual, batch = 2000, 4
    steps = steps or usual
    options = f"\noptions = {beginning.options}" if beginning.options else ""
    objective = (
        f'\nobjective = "{beginning.objective}"' if beginning.objective != "diffusion" else ""
    )
    return _TEXT.format(
        what=beginning.what,
        name=name,
        base=base,
        adapter=beginning.adapter_for(base),
        options=options,
        source=source,
        text_dropped=beginning.text_dropped,
        condition_dropped=beginning.condition_dropped,
        objective=objective,
        steps=steps,
        batch=batch,
        rate=beginning.rate if base == PLAYGROUND else "1e-4",
        warm_up=steps // 10,
    )


_TEXT: Final = """\
# {what}
# Try it: refiners train {name}.toml --dry-run. Every key is optional but those without a comment.
output = "runs/{name}"

[base]
model = "{base}"

[adapter]
name = "{adapter}"{options}

[data]
{source}
text-dropped = {text_dropped}  # the share of examples without a prompt, which guidance needs
condition-dropped = {condition_dropped}  # the share of examples without a condition
held-out = 16  # examples that are not trained on; the log has their loss

[train]{objective}
steps = {steps}
batch = {batch}
accumulation = 1  # parts of a batch, one after the other; more need less memory
seed = 0
precision = "float32"  # "bfloat16" or "float16" on a GPU
optimiser = "adamw"  # or "muon"
learning-rate = {rate}
warm-up = {warm_up}  # steps
average = 0.98  # the decay of the averaged weights, which are saved
checkpoint-every = 100  # an interrupted run goes on from there

[log]
every = 10
measure-every = 100
samples = {{ every = 100, steps = 15 }}  # pictures in runs/{name}/samples

[result]
title = "{name}"
license = "MIT"
"""
