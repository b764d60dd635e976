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


def results(folder: Path) -> dict[str, Path]:
    """Returns the files that a training wrote, by role.

    Args:
        folder: The folder of the run, with its `adapter.toml`.

    Raises:
        FileNotFoundError: The training has no result.
    """
    ((_, spec),) = tomllib.loads((folder / "adapter.toml").read_text("utf-8"))["adapter"].items()
    (variant,) = spec["variant"]
    paths = {
        role: folder / spec["weights"][name].get("file", "")
        for role, name in variant["weights"].items()
        if not spec["weights"][name]["source"].startswith("pkg:")
    }
    return {role: path for role, path in paths.items() if path.is_file()}


def install(name: str, folder: Path) -> list[Path]:
    """Copies the result of a training into its package, and returns the files there.

    Args:
        name: The name of the adapter.
        folder: The folder of the run.

    Raises:
        LookupError: No installed manifest has such a variant.
        FileNotFoundError: The training has no result.
    """
    targets = places(name)
    written = results(folder)
    for role, path in written.items():
        targets[role].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, targets[role])
    return [targets[role] for role in written]


def fingerprint(recipe: Path) -> dict[str, str]:
    """Returns the hashes of what an adapter is made of: its recipe, the base and the readers."""
    names = ("unet", "vae", "text_encoder", "image_encoder", "dino_encoder", "identity_reader")
    paths = [weights_of("refiners_playground") / f"{name}.safetensors" for name in names]
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (recipe, *paths)
        if path.is_file()
    }
