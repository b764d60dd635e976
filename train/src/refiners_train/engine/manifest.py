"""The manifest of a trained adapter, which a package or `refiners pin` takes over."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import tomlkit
from msgspec.structs import replace
from refiners.choose.variant import made_from, variant_for
from refiners.manifest.schema import SCHEMA, AdapterManifest, AdapterSpec, WeightsFile

from refiners_core import Adapter, Model
from refiners_train.config.schema import Config

PLACE: Final = "hf:your-name/{}"
"""The source of files whose repository is not known yet."""
_FACTS: Final = ("cross_attention_dim", "latent_channels", "pooled_text_dim", "width")
"""The facts of a base that the weights of an adapter depend on."""


def manifest_of(
    config: Config,
    model: Model,
    adapter: Adapter,
    name: str,
    pins: Mapping[str, tuple[Path, str]],
    folder: Path,
) -> str:
    """Returns the text of an `adapter.toml` for a trained adapter.

    Args:
        config: The configuration.
        model: The base.
        adapter: The adapter.
        name: The name of the result.
        pins: Each written file with its sha256, by role.
        folder: The output folder.
    """
    plugin = made_from[adapter]
    variant = variant_for(plugin, model)
    result, spec = config.result, plugin.spec
    source = f"hf:{result.repository}" if result.repository else PLACE.format(name)
    weights = {
        role: WeightsFile(
            source=source,
            file=path.relative_to(folder).as_posix(),
            sha256=sha256,
            size=path.stat().st_size,
            license=result.license,
            format="json" if path.suffix == ".json" else "safetensors",
        )
        for role, (path, sha256) in pins.items()
    }
    beside = {file: spec.weights[file] for role, file in variant.files.items() if role not in pins}
    known = {key: model.facts[key] for key in _FACTS if key in model.facts}
    trained = replace(
        variant,
        base=model.base,
        facts=variant.facts or known,
        name="",
        dtype=None,
        advice=None,
        weights={
            **{role: f"{name}-{role}" if len(weights) > 1 else name for role in weights},
            **{role: file for role, file in variant.files.items() if role not in pins},
        },
    )
    files = {f"{name}-{role}" if len(weights) > 1 else name: file for role, file in weights.items()}
    described = AdapterSpec(
        factory=spec.factory,
        summary=result.title or f"{name}: trained with refiners train",
        core_api=spec.core_api,
        paper=spec.paper,
        license=result.license or spec.license,
        kind=spec.kind,
        conflicts=spec.conflicts,
        input=spec.input,
        external=spec.external,
        weights={**files, **beside},
        variant=(trained,),
    )
    manifest = AdapterManifest(schema=SCHEMA, adapter={name: described})
    document = tomlkit.document()
    document.add(tomlkit.comment("Written by refiners train. Upload the files, name their"))
    document.add(tomlkit.comment("repository in `source`, and run: refiners pin adapter.toml"))
    document.update(_plain(msgspec.to_builtins(manifest)))
    return tomlkit.dumps(document)


def _plain(value: Any) -> Any:
    """Returns tables without what is empty, since TOML has no null."""
    if isinstance(value, dict):
        plain = {key: _plain(item) for key, item in value.items()}
        return {key: item for key, item in plain.items() if item not in (None, {}, [], "", ())}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
