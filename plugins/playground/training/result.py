"""Puts trained adapters into the packages whose manifests name their files."""

import hashlib
import shutil
import tomllib
from pathlib import Path
from typing import Any

from write_manifest import manifests, weights_of

BASE = "playground"


def entry(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the entry of an adapter in its manifest, and the variant for the playground.

    Args:
        name: The name of the adapter.

    Raises:
        LookupError: No installed manifest has such a variant.
    """
    for path in manifests():
        spec = tomllib.loads(path.read_text("utf-8")).get("adapter", {}).get(name, {})
        for variant in spec.get("variant", ()):
            if variant.get("base") == BASE:
                return spec, variant
    raise LookupError(f"no manifest has a variant of {name} for the {BASE}")


def places(name: str) -> dict[str, Path]:
    """Returns the files of the playground's variant of an adapter by role, where packages lie.

    Args:
        name: The name of the adapter.

    Raises:
        LookupError: No installed manifest has such a variant.
    """
    spec, variant = entry(name)
    weights = variant["weights"]
    names = {"weights": weights} if isinstance(weights, str) else weights
    paths: dict[str, Path] = {}
    for role, key in names.items():
        module, _, file = spec["weights"][key]["source"].removeprefix("pkg:").partition("/")
        paths[role] = weights_of(module).parent / file
    return paths


def install(name: str, folder: Path) -> list[Path]:
    """Copies the result of a training into its package, and returns the files there.

    Args:
        name: The name of the adapter.
        folder: The folder of the run, with `NAME.safetensors`, or a folder `NAME` of several files.

    Raises:
        LookupError: No installed manifest has such a variant.
        FileNotFoundError: The training has no result.
    """
    target = places(name)["weights"]
    target.parent.mkdir(parents=True, exist_ok=True)
    several = folder / name
    if several.is_dir():
        shutil.copytree(several, target.parent, dirs_exist_ok=True)
        return [target.parent]
    shutil.copyfile(folder / f"{name}.safetensors", target)
    return [target]


def fingerprint(recipe: Path) -> dict[str, str]:
    """Returns the hashes of what an adapter is made of: its recipe, the base and the readers."""
    names = ("unet", "vae", "text_encoder", "image_encoder", "dino_encoder", "identity_reader")
    paths = [weights_of("refiners_playground") / f"{name}.safetensors" for name in names]
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (recipe, *paths)
        if path.is_file()
    }
