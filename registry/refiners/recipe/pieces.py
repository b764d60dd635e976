"""Finds everything that a recipe needs on this machine, before anything is loaded."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from refiners.choose.lookup import find_adapter, find_model, find_preprocessor
from refiners.errors import Notice, NotInstalledError, OptionError, RefinersError
from refiners.hub.client import Hub
from refiners.manifest.address import PREFIX
from refiners.recipe.form import AdapterRecord, Recipe
from refiners.recipe.read import read_recipe
from refiners.recipe.supply import Missing, Supply
from refiners.sources.origin import LOCAL_MODEL, LocalModel, hashes

_RESERVED: Final = ("name", "model", "offline", "lock", "file", "weights")
"""The arguments of `load_adapter` and of every adapter, which are not options."""
_ROLES: Final = ("file", "weights")
"""The names of the hash of a user's file."""


@dataclass(frozen=True)
class Part:
    """An adapter of a recipe, ready to be loaded."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    file: str | None = None
    condition: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The arguments of `Condition`."""


@dataclass(frozen=True)
class Pieces:
    """Everything that a recipe needs, as it is on this machine."""

    recipe: Recipe
    model: str
    parts: tuple[Part, ...]
    arguments: Mapping[str, Any]
    """The arguments of `generate` that the recipe has."""
    dtypes: Mapping[str, str]
    """The dtypes of components; empty for another model than that of the recipe."""


def find_pieces(
    recipe: Recipe | str | os.PathLike[str],
    *,
    conditions: Mapping[str, Any] | None = None,
    model: str | None = None,
    replaced: Collection[str] = (),
) -> Pieces:
    """Finds everything that a recipe needs; nothing is loaded.

    Args:
        recipe: A recipe, or the picture that carries it.
        conditions: Pictures, tensors and paths by their names in the recipe.
        model: The name or the path of another model.
        replaced: The canonical names of adapters that are left out.

    Raises:
        OptionError: A piece is missing; the error lists all.
    """
    folders = [Path.cwd()]
    if not isinstance(recipe, Recipe):
        folders.insert(0, Path(recipe).absolute().parent)
        recipe = read_recipe(recipe)
    receipts = Hub.from_environment(offline=True).receipts
    supply = Supply(conditions or {}, folders, receipts)
    name = model or _model(recipe, supply)
    adapters = (_part(record, supply, replaced) for record in recipe.adapters)
    parts = tuple(part for part in adapters if part is not None)
    arguments = {
        key: value
        for key, value in msgspec.structs.asdict(recipe.arguments).items()
        if value is not None
    }
    for key in ("image", "mask", "latents"):
        if key in arguments:
            arguments[key] = supply.value(key, arguments[key])
    _check(recipe, supply)
    for note in supply.notes:
        warnings.warn(f"{note}.", Notice, stacklevel=3)
    dtypes = {} if model else recipe.model.dtypes
    return Pieces(recipe, name, parts, arguments, dtypes)


def _check(recipe: Recipe, supply: Supply) -> None:
    """Raises the error that lists all missing pieces, and all values without a place."""
    if supply.missing:
        lines = "".join(f"\n  {piece.name}: {piece.what}" for piece in supply.missing)
        hints = dict.fromkeys(piece.hint for piece in supply.missing if piece.hint)
        passed = [piece.name for piece in supply.missing if not piece.hint]
        examples = ", ".join(f'"{name}": "PATH"' for name in passed)
        ways = [*hints, *([f"Pass conditions={{{examples}}}."] if passed else [])]
        raise OptionError(
            f"the picture cannot be made again without:{lines}\n", hint=" ".join(ways)
        )
    if unused := supply.unused:
        names = [record.key for record in recipe.adapters]
        raise OptionError(
            f"the recipe has nothing with the name {' or '.join(unused)}.",
            hint=f"It has {', '.join(names) or 'no adapters'}.",
        )


def _model(recipe: Recipe, supply: Supply) -> str:
    """Returns the name, the address or the path of the model; a missing one is noted."""
    record = recipe.model
    if record.id.startswith(LOCAL_MODEL):
        return _local_model(record.id.removeprefix(LOCAL_MODEL), record.files, supply)
    if record.id.startswith(PREFIX):
        return record.id
    if not record.id:
        what = f"a model of the class {record.kind}" if record.kind else "a model"
        supply.missing.append(Missing("model", what, 'Pass the model: model="sd15".'))
        return ""
    try:
        plugin = find_model(record.id)
    except RefinersError as error:
        supply.missing.append(_not_installed("model", record.id, record.version, error))
        return ""
    _compare(plugin.id, record.version, plugin.version, supply)
    _compare_files(plugin.id, record.files, hashes(plugin.spec.weights), supply)
    return plugin.id


def _local_model(name: str, files: Mapping[str, str], supply: Supply) -> str:
    """Returns the path of a file or folder of that name beside the picture with the same hashes."""
    for folder in supply.folders if name and Path(name).name == name else ():
        path = folder / name
        if path.exists() and any(files.values()):
            known = {
                key: file.sha256(supply.receipts)
                for key, file in LocalModel.of(path, None).files.items()
            }
            if all(known.get(key, "").startswith(value) for key, value in files.items()):
                return str(path)
    hint = 'Pass the model: model="PATH".'
    digest = next(iter(files.values()), "")
    known_by = f", sha256 {digest[:12]}..." if digest else ""
    supply.missing.append(Missing("model", f"the model {name}{known_by}", hint))
    return ""


def _part(record: AdapterRecord, supply: Supply, replaced: Collection[str]) -> Part | None:
    """Returns an adapter with its file and condition; what is missing is noted."""
    name = record.id or record.name
    if record.kind:
        what = f"an adapter of the class {record.kind}, which comes from no package"
        hint = "Put it on a model yourself, and call generate with the arguments."
        supply.missing.append(Missing(record.key, what, hint))
        return None
    try:
        plugin = find_adapter(name)
    except RefinersError as error:
        supply.missing.append(_not_installed(record.key, name, record.version, error))
        return None
    if plugin.id in replaced:
        return None
    _compare(plugin.id, record.version, plugin.version, supply)
    pins = {role: digest for role, digest in record.files.items() if digest}
    known = hashes(plugin.spec.weights)
    if not record.file and not {*pins.values()} <= {*known.values(), ""}:
        supply.notes.append(f"the files of {plugin.id} differ from those of the recipe")
    file: str | None = record.file or None
    if file is not None and not file.startswith(PREFIX):
        path = supply.file(
            record.key, file, record.files.get("weights", record.files.get("file", ""))
        )
        file = None if path is None else str(path)
    if reserved := [name for name in record.options if name in _RESERVED]:
        raise OptionError(
            f"the recipe has {' and '.join(reserved)} as an option of {plugin.id}.",
            hint="It was not written by this program; do not trust it.",
        )
    condition = {
        "value": _value(supply, record.key, record.condition),
        "mask": _value(supply, f"{record.key}.mask", record.mask),
        "scale": supply.value(f"{record.key}.scale", record.scale),
        **{"start": record.start, "end": record.end},
        "preprocess": _preprocess(supply, record),
    }
    options = {
        key: supply.value(f"{record.key}.{key}", item) for key, item in record.options.items()
    }
    return Part(plugin.id, options, file, condition)


def _preprocess(supply: Supply, record: AdapterRecord) -> Any:
    """Returns the preprocessor of a condition; a missing one is noted."""
    for id, version in record.preprocessors.items():
        try:
            plugin = find_preprocessor(id)
        except RefinersError as error:
            supply.missing.append(_not_installed(record.key, id, version, error))
        else:
            _compare(plugin.id, version, plugin.version, supply)
    return supply.preprocess(record.key, record.preprocess)


def _value(supply: Supply, name: str, record: Any) -> Any:
    return None if record is None else supply.value(name, record)


def _not_installed(key: str, name: str, version: str, error: RefinersError) -> Missing:
    dist = name.partition(":")[0] if ":" in name else ""
    pin = f"=={version}" if version else ""
    hint = f"Run pip install {dist}{pin}." if dist and isinstance(error, NotInstalledError) else ""
    return Missing(key, f"{name} {version}".strip(), hint or error.hint or "Install its package.")


def _compare(id: str, recorded: str, installed: str, supply: Supply) -> None:
    if recorded and recorded != installed:
        supply.notes.append(f"{id} {recorded} made the picture; {installed} is installed")


def _compare_files(
    id: str, recorded: Mapping[str, str], installed: Mapping[str, str], supply: Supply
) -> None:
    for role, digest in recorded.items():
        if digest and installed.get(role, digest) not in (digest, ""):
            supply.notes.append(f"the file {role} of {id} differs from that of the recipe")
