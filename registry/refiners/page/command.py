"""The lines to type to install and use a plugin."""

from __future__ import annotations

from refiners.manifest.schema import AdapterSpec, ModelSpec
from refiners.page.published import Plugin
from refiners.page.text import clipped

_FILE = "path/to/file.safetensors"


def python_lines(plugin: Plugin) -> str:
    """Returns the lines of Python that load a plugin."""
    name = plugin.call
    if plugin.entry.kind == "model":
        return f'import refiners\n\nmodel = refiners.load_model("{name}")'
    if plugin.entry.kind == "preprocessor":
        return f'import refiners\n\nfunction = refiners.load_preprocessor("{name}")'
    return (
        "import refiners\n\n"
        f'model = refiners.load_model("{_base(plugin)}")\n'
        f'adapter = refiners.load_adapter("{_what(plugin)}", model)'
    )


def shell_lines(plugin: Plugin) -> tuple[str, ...]:
    """Returns the commands that explain a plugin, and use it."""
    name, spec = plugin.call, plugin.spec
    if plugin.entry.kind == "model":
        is_language = isinstance(spec, ModelSpec) and spec.family == "decoder"
        verb = "write" if is_language else "generate"
        return f"refiners info {name}", f'refiners {verb} "a red heart" --model {name}'
    if plugin.entry.kind == "preprocessor":
        return (f"refiners preprocess {name} photo.png --out {plugin.entry.name}.png",)
    base, what = _base(plugin), _what(plugin)
    why = f"refiners why {what} --model {base}"
    if not isinstance(spec, AdapterSpec):
        return (why,)
    slots = [target.slot for variant in spec.variant for target in variant.targets]
    verb = "write" if slots and all(slot.startswith("decoder.") for slot in slots) else "generate"
    names = [clipped(each, 60) for each in spec.input][:4]
    inputs = f"={names[0]}.png" if len(names) == 1 else ""
    if len(names) > 1:
        inputs = "=" + ",".join(f"{each}={each}.png" for each in names)
    use = f'refiners {verb} "a red heart" --model {base} --adapter {what}{inputs}'
    return why, use


def _base(plugin: Plugin) -> str:
    """Returns a base that the plugin fits."""
    return next((base for base in plugin.entry.bases if base != "any"), "sd15")


def _what(plugin: Plugin) -> str:
    """Returns the name of the plugin, or a path if the user supplies its file."""
    spec = plugin.spec
    is_yours = isinstance(spec, AdapterSpec) and spec.file is not None and not spec.weights
    return _FILE if is_yours else plugin.call
