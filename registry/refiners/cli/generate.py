"""`refiners generate`: makes pictures from a prompt, with adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from refiners.cli.adapter_option import (
    METAVAR,
    AdapterOption,
    parse_adapters,
    with_preprocess,
)
from refiners.cli.completion import complete_adapter, complete_model
from refiners.cli.loading import checked_and_loaded
from refiners.cli.location import name_or_path
from refiners.cli.picture import check_out, replacing
from refiners.cli.recipe import parse_conditions, pieces_like
from refiners.cli.report import json_option, print_json
from refiners.recipe.picture import open_picture
from refiners.recipe.pieces import Pieces


def parse_size(
    ctx: click.Context, parameter: click.Parameter, value: str | None
) -> int | tuple[int, int] | None:
    """Parses `--size`: one side, or width and height, in pixels."""
    if value is None:
        return None
    sides = value.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise click.BadParameter(f"{value!r} is not a size; write 64x64, or 64 for both sides")
    width, height = int(sides[0]), int(sides[-1])
    return width if len(sides) == 1 else (width, height)


def _parse_numbers(
    ctx: click.Context, parameter: click.Parameter, value: str | None
) -> list[float] | None:
    if value is None:
        return None
    try:
        numbers = [float(item) for item in value.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is not a list of numbers; write 999,749,499,249"
        ) from None
    return [int(number) if number.is_integer() else number for number in numbers]


_MODEL: Final = "playground"
_PICTURE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.argument("prompt", required=False)
@click.option("--model", metavar="NAME|PATH|hf:ORG/NAME@COMMIT", shell_complete=complete_model,
              help="An installed model (refiners list), a folder or file, or a repository.  "
              "[default: playground]",
)  # fmt: skip
@click.option("--adapter", "adapters", multiple=True, callback=parse_adapters, metavar=METAVAR,
              shell_complete=complete_adapter,
              help="Use this adapter; repeatable. With several inputs: NAME=INPUT=PICTURE,...",
)  # fmt: skip
@click.option("--preprocess", is_flag=True,
              help="Make the inputs of adapters, such as edges, from their pictures.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default="out.png",
              show_default=True, help="The file to write; several are numbered.")  # fmt: skip
@click.option("--like", type=_PICTURE,
              help="Make this picture again, from the recipe in it; other options change it.",
)  # fmt: skip
@click.option("--condition", "conditions", multiple=True, callback=parse_conditions,
              metavar="NAME=PATH", help="With --like: a picture or a file that the recipe names.",
)  # fmt: skip
@click.option("--negative", "negative_prompt", help="The negative prompt: what to avoid.")
@click.option("--seed", type=int,
              help="The same seed makes the same picture.  [default: 0]")  # fmt: skip
@click.option("--steps", type=click.IntRange(min=1),
              help="The number of denoising steps; as an adapter requires, or 30.")  # fmt: skip
@click.option("--timesteps", callback=_parse_numbers, metavar="STEP,STEP,...",
              help="The training steps to visit, noisiest first, instead of --steps.")  # fmt: skip
@click.option("--sigmas", callback=_parse_numbers, metavar="SIGMA,SIGMA,...",
              help="The noise levels to visit, with that of the end, instead of --steps.",
)  # fmt: skip
@click.option("--guidance", type=click.FloatRange(min=0),
              help="How closely to follow the prompt; as an adapter requires, or 7.5.")  # fmt: skip
@click.option("--size", callback=parse_size, metavar="SIDE|WIDTHxHEIGHT",
              help="In pixels; the model's own by default.")  # fmt: skip
@click.option("--count", type=click.IntRange(min=1), help="The number of pictures; 1 by default.")
@click.option("--sampler", metavar="NAME",
              help="Such as euler, or 'DPM++ 2M Karras' (refiners samplers); as an adapter "
              "requires, or the model's.",
)  # fmt: skip
@click.option("--image", type=_PICTURE, help="The picture to start from.")
@click.option("--mask", type=_PICTURE, help="The part of --image to change, in white.")
@click.option("--strength", type=click.FloatRange(0, 1), help="How much to change --image.")
@click.option("--guidance-rescale", type=click.FloatRange(0, 1),
              help="Keep the contrast of --guidance natural; try 0.7.")  # fmt: skip
@click.option("--offload", is_flag=True, default=None,
              help="Move each part to the accelerator only while it runs, to save memory.",
)  # fmt: skip
@click.option("--no-recipe", is_flag=True, help="Write the picture without its recipe.")
@click.option("--device", metavar="NAME", help="Such as cpu or cuda.")
@click.option("--dtype", metavar="NAME", help="Such as float16.")
@click.option("--offline", is_flag=True, is_eager=True, help="Do not go online.")
@json_option
def generate(
    prompt: str | None,
    model: str | None,
    adapters: tuple[AdapterOption, ...],
    preprocess: bool,
    like: Path | None,
    conditions: dict[str, Path],
    out: Path,
    no_recipe: bool,
    device: str | None,
    dtype: str | None,
    offline: bool,
    as_json: bool,
    **optional: Any,
) -> None:
    """Make pictures from a prompt, with adapters.

    An adapter is written NAME[=PICTURE][:SCALE][,OPTION=VALUE...], with its file or hf:ORG/NAME in
    place of the name if you like. The scale is the strength of the adapter: 1, the default, is as
    trained, and 0 turns it off. Options are the arguments of the adapter's constructor; numbers,
    true, false and none are parsed. The option preprocess=true makes the adapter's input from a
    photo, and preprocess=NAME does so with another preprocessor. Everything is checked before a
    file is fetched or loaded.

    The scale may also be one for each of several places, unet.up.0=1+unet.mid=0.4, others being 0,
    or change over the steps: 1@0+0.2@0.5 falls from 1 to 0.2 in the first half.

    \b
    Examples:
      refiners generate "a red circle on a blue field" --out circle.png
      refiners generate "a red circle" --adapter controlnet-canny=edges.png --seed 7
      refiners generate "a circle" --adapter controlnet-canny=photo.png --preprocess
      refiners generate "" --adapter ip-adapter=photo.png:0.8 --steps 20 --guidance 3
      refiners generate "a cat" --model sd15 --adapter style.safetensors:0.8
      refiners generate "a cat" --model sd15 --adapter freeu:0.5
      refiners generate "a heart" --adapter lora-ink:unet.up=1+unet.mid=0.4
      refiners generate "a cat" --model sd15 --adapter style-aligned:1,shift=0.5 --count 4
      refiners generate "a door" --adapter controlnet-inpaint=picture=in.png,mask=where.png
      refiners generate "a (red:1.3) circle" --image in.png --mask where.png --sampler euler
      refiners generate --like circle.png --seed 4 --out other.png
    """
    if prompt is None and like is None:
        raise click.MissingParameter(param_hint="'PROMPT'", param_type="argument")
    if conditions and like is None:
        raise click.UsageError("--condition goes with --like; write --adapter NAME=PICTURE.")
    outs = _numbered(out, optional.get("count") or 1)
    for path in outs:
        check_out(path)
    model = None if model is None else name_or_path(model)
    adapters = with_preprocess(adapters) if preprocess else adapters
    # options that are not given are not passed, because another model may not take them
    arguments = {name: value for name, value in optional.items() if value is not None}
    pictures = {name: arguments[name] for name in ("image", "mask") if name in arguments}
    arguments |= {name: open_picture(path) for name, path in pictures.items()}
    arguments |= {"recipe": False} if no_recipe else {}
    loading = {"device": device, "dtype": dtype, "offline": offline or None}
    facts: dict[str, Any] = {"adapters": [option.facts for option in adapters]}
    if like is None:
        model = model or _MODEL
        arguments = {"negative_prompt": "", "seed": 0, "size": None} | arguments
        images = _new(prompt or "", model, adapters, arguments, loading, not as_json)
        facts |= {"model": model, "seed": arguments["seed"]}
    else:
        pieces = pieces_like(like, model, conditions, adapters)
        arguments |= {} if prompt is None else {"prompt": prompt}
        images = _again(pieces, arguments, loading, not as_json)
        facts |= {"model": pieces.model, "seed": arguments.get("seed", pieces.recipe.seed)}
        facts |= {"like": str(like)}
    for path, image in zip(outs, images, strict=False):
        with replacing(path) as temporary:
            image.save(temporary)
    if as_json:
        print_json({"out": str(outs[0]), "outs": [str(path) for path in outs], **facts})
        return
    for path in outs:
        click.echo(f"wrote {path}")


def _new(
    prompt: str,
    model: str,
    adapters: tuple[AdapterOption, ...],
    arguments: dict[str, Any],
    loading: dict[str, Any],
    has_bar: bool,
) -> list[Any]:
    """Generates with the options of the command line, checked before anything is loaded."""
    loaded, conditions = checked_and_loaded(
        model, prompt, adapters, arguments, loading, is_text=False
    )
    result = loaded.generate(prompt, conditions=conditions, progress=has_bar, **arguments)
    return result if isinstance(result, list) else [result]


def _again(
    pieces: Pieces, changes: dict[str, Any], loading: dict[str, Any], has_bar: bool
) -> list[Any]:
    """Generates from a recipe, with the options that are given in place of its arguments."""
    from refiners.remake import remake

    result = remake(pieces, {**changes, "progress": has_bar}, **loading)
    return result if isinstance(result, list) else [result]


def _numbered(out: Path, count: int) -> list[Path]:
    """Returns the path of each picture: `star.png`, or `star-1.png`, `star-2.png`, ..."""
    if count == 1:
        return [out]
    return [out.with_name(f"{out.stem}-{number}{out.suffix}") for number in range(1, count + 1)]
