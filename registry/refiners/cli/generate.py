"""`refiners generate`: a picture from a prompt, steered by adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from refiners.cli.adapter_option import METAVAR, AdapterOption, parse_adapter_option
from refiners.cli.completion import complete_adapter, complete_model
from refiners.cli.location import name_or_path
from refiners.cli.picture import check_out, opened, replacing
from refiners.cli.preflight import check_manifests, dry_run
from refiners.cli.report import json_option, print_json


def _parsed(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[AdapterOption, ...]:
    return tuple(parse_adapter_option(value) for value in values)


def _size(
    ctx: click.Context, parameter: click.Parameter, value: str | None
) -> int | tuple[int, int] | None:
    if value is None:
        return None
    sides = value.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise click.BadParameter(f"{value!r} is not a size; write 64x64, or 64 for both sides")
    width, height = int(sides[0]), int(sides[-1])
    return width if len(sides) == 1 else (width, height)


_PICTURE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.argument("prompt")
@click.option("--model", default="playground", show_default=True, shell_complete=complete_model,
              help="Its name (refiners list), the path of a folder or file, or hf:ORG/NAME@COMMIT.",
)  # fmt: skip
@click.option("--adapter", "adapters", multiple=True, callback=_parsed, metavar=METAVAR,
              shell_complete=complete_adapter,
              help="Steer with it; repeatable. Of several inputs: NAME=INPUT=PICTURE,...",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default="out.png",
              show_default=True, help="Where the picture goes; several are numbered.")  # fmt: skip
@click.option("--negative", default="", help="What it should not look like.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same gives the same.")
@click.option("--steps", type=click.IntRange(min=1), default=30, show_default=True)
@click.option("--guidance", type=click.FloatRange(min=0), default=7.5, show_default=True)
@click.option("--size", callback=_size, metavar="SIDE|WIDTHxHEIGHT",
              help="In pixels; the model's own by default.")  # fmt: skip
@click.option("--count", type=click.IntRange(min=1), help="How many pictures; 1 by default.")
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
    adapters: tuple[AdapterOption, ...],
    out: Path,
    negative: str,
    seed: int,
    steps: int,
    guidance: float,
    size: int | tuple[int, int] | None,
    device: str | None,
    dtype: str | None,
    offline: bool,
    as_json: bool,
    **more: Any,
) -> None:
    """Make a picture from a prompt, steered by adapters.

    An adapter is written NAME[=PICTURE][:SCALE][,OPTION=VALUE...]. The scale says how strongly it
    acts: 1, the default, is as it was trained, 0 leaves it out. Options are those of the adapter's
    constructor; numbers, true, false and none are read as such. Everything is checked before
    anything is fetched or loaded.

    \b
    Examples:
      refiners generate "a red circle on a blue field" --out circle.png
      refiners generate "a red circle" --adapter controlnet-canny=edges.png --seed 7
      refiners generate "" --adapter ip-adapter=photo.png:0.8 --steps 20 --guidance 3
      refiners generate "a cat" --model sd15 --adapter lora=style.safetensors:0.8
      refiners generate "a cat" --model sd15 --adapter freeu:0.5
      refiners generate "a cat" --model sd15 --adapter style-aligned:1,shift=0.5 --count 4
      refiners generate "a door" --adapter controlnet-inpaint=picture=in.png,mask=where.png
      refiners generate "a (red:1.3) circle" --image in.png --mask where.png --sampler euler
    """
    outs = _numbered(out, more.get("count") or 1)
    for path in outs:
        check_out(path)
    model = name_or_path(model)
    check_manifests(model, adapters)
    asked = {name: value for name, value in more.items() if value is not None}
    asked |= {name: opened(asked[name]) for name in ("image", "mask") if name in asked}
    asked |= {"negative_prompt": negative, "seed": seed, "steps": steps, "guidance": guidance}
    asked |= {"size": size}
    values = [one.told(opened) for one in adapters]
    dry_run(model, prompt, adapters, values, asked, device, dtype, offline or None)
    from refiners.load import load_adapter, load_model
    from refiners_core import Condition

    built: Any = load_model(model, device=device, dtype=dtype, offline=offline or None)
    conditions: dict[Any, Condition] = {}
    for one, value in zip(adapters, values, strict=True):
        adapter = load_adapter(one.name, built, offline=offline or None, **one.arguments)
        conditions[adapter] = Condition(value, scale=one.scale)
    # what is not said is not passed: a model of somebody else's may not know it
    made = built.generate(prompt, conditions=conditions, progress=not as_json, **asked)
    pictures = made if isinstance(made, list) else [made]
    for path, picture in zip(outs, pictures, strict=False):
        with replacing(path) as temporary:
            picture.save(temporary)
    if as_json:
        facts = {"out": str(outs[0]), "outs": [str(path) for path in outs], "model": model}
        print_json(facts | {"seed": seed, "adapters": [one.facts for one in adapters]})
        return
    for path in outs:
        click.echo(f"wrote {path}")


def _numbered(out: Path, count: int) -> list[Path]:
    """Returns where pictures go: `star.png`, or of several `star-1.png`, `star-2.png`, ..."""
    if count == 1:
        return [out]
    return [out.with_name(f"{out.stem}-{number}{out.suffix}") for number in range(1, count + 1)]
