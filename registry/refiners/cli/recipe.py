"""`refiners info picture.png` and `refiners generate --like picture.png`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from refiners.cli.adapter_option import AdapterOption
from refiners.cli.report import print_json, print_table
from refiners.recipe.form import AdapterRecord, Recipe
from refiners.recipe.picture import open_picture
from refiners.recipe.pieces import Part, Pieces, find_pieces
from refiners.recipe.read import SUFFIXES, read_recipe
from refiners.recipe.supply import described

_SHORT: Final = 12
"""The number of digits of a hash in a table."""


def is_picture(what: str) -> bool:
    """Whether an argument of `refiners info` is the path of a picture."""
    return what.lower().endswith(SUFFIXES)


def print_recipe(path: str, *, as_json: bool) -> None:
    """Prints the recipe of a picture.

    Raises:
        OptionError: The picture does not exist, or its recipe is missing or damaged.
    """
    recipe = read_recipe(path)
    if as_json:
        print_json({"path": path, "recipe": msgspec.to_builtins(recipe)})
        return
    rows = [(name, value) for name, value in _facts(recipe) if value not in ("", None)]
    print_table(path, ("", ""), rows)
    if recipe.adapters:
        columns = ("name", "adapter", "scale", "condition")
        print_table("Adapters", columns, [_adapter(record) for record in recipe.adapters])
    if files := _files(recipe):
        print_table("Files", ("of", "name", "sha256"), files)


def parse_conditions(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, Path]:
    """Parses `--condition NAME=PATH`.

    Raises:
        click.BadParameter: A value is malformed, is given twice, or names a missing file.
    """
    conditions: dict[str, Path] = {}
    for value in values:
        name, equals, path = value.partition("=")
        if not (name and equals and path):
            raise click.BadParameter(f"{value!r} is not NAME=PATH; write ip-adapter=photo.png")
        if name in conditions:
            raise click.BadParameter(f"{name} is given twice")
        if not Path(path).exists():
            raise click.BadParameter(f"{path} does not exist")
        conditions[name] = Path(path)
    return conditions


def pieces_like(
    picture: Path,
    model: str | None,
    conditions: Mapping[str, Path],
    options: Sequence[AdapterOption],
) -> Pieces:
    """Finds what a picture was made with; an `--adapter` replaces that of the recipe.

    Args:
        picture: The picture that carries the recipe.
        model: Another model.
        conditions: The pictures and files that the recipe names by hash.
        options: The adapters in place of those of the recipe, and further ones.

    Raises:
        OptionError: A piece is missing; the error lists all.
    """
    # not the ids of the adapters, which have the file in them where a file chose the adapter
    names = [f"{option.adapter.dist}:{option.adapter.name}" for option in options]
    pieces = find_pieces(picture, conditions=conditions, model=model, replaced=names)
    parts = [
        Part(
            name,
            option.options,
            option.file,
            {
                "value": option.value(open_picture),
                "scale": option.scale,
                "preprocess": option.preprocess,
            },
        )
        for name, option in zip(names, options, strict=True)
    ]
    return replace(pieces, parts=(*pieces.parts, *parts))


def _numbers(values: Sequence[float] | None) -> str:
    return ",".join(f"{value:g}" for value in values or ())


def _facts(recipe: Recipe) -> list[tuple[str, Any]]:
    arguments, model = recipe.arguments, recipe.model
    size = arguments.size
    facts: list[tuple[str, Any]] = [
        ("prompt", recipe.prompt),
        ("negative prompt", recipe.negative_prompt),
        ("seed", recipe.seed),
        ("steps", arguments.steps),
        ("timesteps", _numbers(arguments.timesteps)),
        ("sigmas", _numbers(arguments.sigmas)),
        ("sampler", recipe.sampler),
        ("guidance", arguments.guidance),
        ("guidance rescale", arguments.guidance_rescale or None),
        ("size", f"{size[0]} x {size[1]}" if size else ""),
        ("strength", arguments.strength),
        ("model", " ".join(filter(None, (model.id or model.kind, model.version)))),
        ("written by", recipe.written_by if recipe.written_by != "refiners" else ""),
        ("made with", ", ".join(f"{name} {value}" for name, value in recipe.made_with.items())),
        ("ended after", recipe.ended_after and f"{recipe.ended_after} steps"),
    ]
    for name in ("image", "mask", "latents"):
        if (record := getattr(arguments, name)) is not None:
            facts.append((name, _shown(record)))
    return facts


def _adapter(record: AdapterRecord) -> tuple[str, str, str, str]:
    span = "" if (record.start, record.end) == (0, 1) else f", {record.start:g}...{record.end:g}"
    scale = f"{record.scale:g}" if isinstance(record.scale, int | float) else _shown(record.scale)
    origin = " ".join(filter(None, (record.id or record.kind or record.name, record.version)))
    options = ", ".join(f"{name}={_shown(value)}" for name, value in record.options.items())
    parts = [record.file, options, _shown(record.condition)]
    parts += [f"mask {_shown(record.mask)}"] if record.mask is not None else []
    parts += [f"preprocess {_preprocess(record)}"] if record.preprocess else []
    return record.key, origin, f"{scale}{span}", "; ".join(filter(None, parts))


def _preprocess(record: AdapterRecord) -> str:
    if isinstance(record.preprocess, dict):
        return str(record.preprocess.get("object", "function"))
    return record.preprocess if isinstance(record.preprocess, str) else "as declared"


def _files(recipe: Recipe) -> list[tuple[str, str, str]]:
    owners = [("model", recipe.model.files), *((a.key, a.files) for a in recipe.adapters)]
    return [
        (owner, name, digest[:_SHORT] if digest else "unknown")
        for owner, files in owners
        for name, digest in files.items()
    ]


def _shown(record: Any) -> str:
    """Returns the record of a value on one line."""
    if record is None:
        return ""
    if isinstance(record, list):
        items: list[Any] = record
        return ", ".join(map(_shown, items))
    if not isinstance(record, dict):
        return str(record)
    table: dict[str, Any] = record
    inputs: Any = table.get("inputs")
    if isinstance(inputs, dict):
        parts: dict[str, Any] = inputs
        return "; ".join(f"{name}: {_shown(value)}" for name, value in parts.items())
    if "value" in table:
        return f"{_shown(table['value'])}, scale {table.get('scale', 1.0):g}"
    return described(table)
