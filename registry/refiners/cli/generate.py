"""`refiners generate`: a picture from a prompt, steered by adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from refiners.cli.picture import check_out, opened, replacing
from refiners.cli.report import json_option, print_json
from refiners.errors import OptionError
from refiners.lookup import find_adapter


class Steering(NamedTuple):
    """One `--adapter NAME=PICTURE:SCALE` or, for an adapter of a file, `NAME=FILE:SCALE`."""

    name: str
    pictures: Mapping[str, Path]
    """By the names of the adapter's inputs; by no name where there is only one."""
    scale: float
    file: str | None = None
    """The file of an adapter that reads one of the user's."""

    def told(self, take: Callable[[Path], Any]) -> Any:
        """Returns something of the picture, or of each of several; None if there is none."""
        taken = {name: take(path) for name, path in self.pictures.items()}
        return taken.get("", taken or None)


def _steering(text: str) -> Steering:
    name, _, rest = text.partition("=")
    path, _, scale = rest.rpartition(":")
    if name and find_adapter(name).spec.file is not None:
        return _with_file(name, rest)
    try:
        steering = Steering(name, _pictures(path), float(scale)) if path else None
    except ValueError:  # the colon belongs to the path
        steering = None
    steering = steering or Steering(name, _pictures(rest), 1.0)
    if not name:
        raise click.BadParameter(f"{text!r} names no adapter; write controlnet-canny=edges.png")
    for picture in steering.pictures.values():
        if not picture.is_file():
            raise click.BadParameter(f"there is no picture {picture}")
    return steering


def _with_file(name: str, text: str) -> Steering:
    file, _, scale = text.rpartition(":")
    try:
        steering = Steering(name, {}, float(scale), file) if file else None
    except ValueError:  # the colon belongs to the file
        steering = None
    if not text:
        raise click.BadParameter(f"{name} needs a file; write {name}=style.safetensors:0.8")
    return steering or Steering(name, {}, 1.0, text)


def _pictures(text: str) -> dict[str, Path]:
    """Reads `PICTURE`, or `INPUT=PICTURE,INPUT=PICTURE` unless that is the name of a file."""
    if not text:
        return {}
    named = [part.partition("=") for part in text.split(",")]
    if Path(text).is_file() or not all(input and path for input, _, path in named):
        return {"": Path(text)}
    return {input: Path(path) for input, _, path in named}


def _steerings(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[Steering, ...]:
    return tuple(_steering(value) for value in values)


def _size(
    ctx: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    if value is None:
        return None
    width, _, height = value.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise click.BadParameter(f"{value!r} is no size; write 64x64")
    return int(width), int(height)


_PICTURE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.argument("prompt")
@click.option("--model", default="playground", show_default=True, help="Its name: refiners list.")
@click.option("--adapter", "steerings", multiple=True, callback=_steerings,
              metavar="NAME[=PICTURE|FILE[:SCALE]]",
              help="Steer with it; repeatable. Of several inputs: NAME=INPUT=PICTURE,...",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default="out.png",
              show_default=True, help="Where the picture goes.")  # fmt: skip
@click.option("--negative", default="", help="What it should not look like.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same gives the same.")
@click.option("--steps", type=click.IntRange(min=1), default=30, show_default=True)
@click.option("--guidance", type=click.FloatRange(min=0), default=7.5, show_default=True)
@click.option("--size", callback=_size, metavar="WIDTHxHEIGHT", help="The model's own by default.")
@click.option("--sampler", help="Such as euler or dpm++-2m; the model's own by default.")
@click.option("--image", type=_PICTURE, help="A picture to begin with.")
@click.option("--mask", type=_PICTURE, help="Where it may change: what is white.")
@click.option("--strength", type=click.FloatRange(0, 1), help="How far the image is changed.")
@click.option("--guidance-rescale", type=click.FloatRange(0, 1), help="Keep contrast; try 0.7.")
@click.option("--offload", is_flag=True, default=None, help="Use the accelerator part by part.")
@click.option("--device", help="Such as cpu or cuda.")
@click.option("--dtype", help="Such as float16.")
@click.option("--offline", is_flag=True, help="Open no socket.")
@json_option
def generate(
    prompt: str,
    model: str,
    steerings: tuple[Steering, ...],
    out: Path,
    negative: str,
    seed: int,
    steps: int,
    guidance: float,
    size: tuple[int, int] | None,
    device: str | None,
    dtype: str | None,
    offline: bool,
    as_json: bool,
    **more: Any,
) -> None:
    """Make a picture from a prompt, steered by adapters.

    A scale says how strongly an adapter acts; 1 is as it was trained.

    \b
    Examples:
      refiners generate "a red circle on a blue field" --out circle.png
      refiners generate "a red circle" --adapter controlnet-canny=edges.png --seed 7
      refiners generate "" --adapter ip-adapter=photo.png:0.8 --steps 20 --guidance 3
      refiners generate "a cat" --model sd15 --adapter lora=style.safetensors:0.8
      refiners generate "a door" --adapter controlnet-inpaint=picture=in.png,mask=where.png
      refiners generate "a (red:1.3) circle" --image in.png --mask where.png --sampler euler
    """
    check_out(out)
    asked = {name: value for name, value in more.items() if value is not None}
    asked |= {name: opened(asked[name]) for name in ("image", "mask") if name in asked}
    values = [one.told(opened) for one in steerings]
    from refiners.load import load_adapter, load_model
    from refiners_core import Condition

    built: Any = load_model(model, device=device, dtype=dtype, offline=offline or None)
    conditions: dict[Any, Condition] = {}
    for one, value in zip(steerings, values, strict=True):
        adapter = load_adapter(one.name, built, offline=offline or None, file=one.file)
        if getattr(adapter, "takes_condition", False) and value is None:
            raise OptionError(
                f"{one.name} needs a picture, and is given none.",
                hint=f"Write --adapter {one.name}=picture.png.",
            )
        conditions[adapter] = Condition(value, scale=one.scale)
    made = built.generate(
        prompt,
        negative_prompt=negative,
        conditions=conditions,
        seed=seed,
        steps=steps,
        guidance=guidance,
        size=size,
        progress=not as_json,
        **asked,  # what is not said is not passed: a model of somebody else's may not know it
    )
    picture = made[0] if isinstance(made, list) else made
    with replacing(out) as path:
        picture.save(path)
    if as_json:
        adapters = [
            {"name": s.name, "picture": s.told(str), "scale": s.scale}
            | ({"file": s.file} if s.file else {})
            for s in steerings
        ]
        print_json({"out": str(out), "model": model, "seed": seed, "adapters": adapters})
    else:
        click.echo(f"wrote {out}")
