"""A good package of an adapter, small enough to be tried in a second, and ways to spoil it."""

import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from refiners_testkit import AdapterContract

PYPROJECT = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "refiners-shade"
version = "0.1.0"
readme = "README.md"
license = "MIT"
license-files = ["LICENSE"]
dependencies = ["refiners-core>=1.0.0.dev0,<2"]

[project.entry-points."refiners.adapters"]
shade = "refiners_shade:adapter.toml"

[tool.setuptools.packages.find]
where = ["src"]

[tool.setuptools.package-data]
refiners_shade = ["adapter.toml", "examples/*", "*.pkl"]
"""
MANIFEST = f"""
schema = 1

[adapter.shade]
factory = "refiners_shade.adapter:Shade"
summary = "Shades pictures"
core-api = ">=1.0,<2"
license = "MIT"
advice = {{ sampler = "lcm", steps = 4 }}

[adapter.shade.weights.shade]
source = "hf:someone/shade"
file = "shade.safetensors"
revision = "{"1" * 40}"
sha256 = "{"2" * 64}"
size = 1234
license = "MIT"

[[adapter.shade.variant]]
base = "sd15"
weights = "shade"
targets = [{{ slot = "unet.conv_in", stage = "branch" }}]
"""
CODE = '''
"""Shade: a branch beside the first convolution."""

import torch
from refiners_core import Adapter, Chain, Multiply, Sum, When
from refiners_core.weights import KeyMap, load, published
from torch import nn

KEYS = KeyMap({"read": "shade.read", "first": "shade.first", "second": "shade.second"})


class Shade(Adapter):
    """Adds a shade to the features of the first convolution."""

    def build(self, model, source):
        self.branch = Chain(
            read=nn.Conv2d(4, 8, 1, bias=False),
            first=nn.Conv2d(8, 8, 1, bias=False),
            second=nn.Conv2d(8, 8, 1, bias=False),
        ).to(model.device, model.dtype)
        if source is not None:
            load(self.branch, source.files["weights"], KEYS)

    def edits(self, model):
        def shaded(inner, seat):
            branch = self.layer(seat, lambda: self.branch)
            return Sum(inner, When(self.scale_key, branch, Multiply(self.scale_key)))

        return model.slot("unet.conv_in").wrap(shaded, stage="branch")

    def published(self):
        return published(self.branch, KEYS)
'''
EXAMPLE = '''
"""Draws a picture with a shade."""

from refiners_core.testing import tiny_model
from refiners_shade.adapter import Shade

with Shade(name="shade").on(model := tiny_model()):
    model.generate("a cat", steps=1, progress=False)
'''
ADAPTER, TOML = "src/refiners_shade/adapter.py", "src/refiners_shade/adapter.toml"
GOOD: Mapping[str, str | bytes] = {
    "pyproject.toml": PYPROJECT,
    "README.md": "# Shade\n\nShades pictures.\n",
    "LICENSE": "MIT License\n",
    "src/refiners_shade/__init__.py": '"""Shades pictures."""\n',
    "src/refiners_shade/adapter.toml": MANIFEST,
    "src/refiners_shade/adapter.py": CODE,
    "src/refiners_shade/examples/shade.py": EXAMPLE,
}


class Mutant(NamedTuple):
    """A fault of the package: a text that takes the place of another in a file."""

    fault: str
    check: str
    """The method of the contract that catches it."""
    words: str
    """A part of the message, as a regular expression."""
    file: str
    old: str
    new: str | bytes | None
    """The new text; None removes the file."""
    name: str = "shade"


_BUILD = "        if source is not None:"
_WIRE = "            branch = self.layer"
_LAYER = "            branch = self.layer(seat, lambda: self.branch)"
MUTANTS = (
    Mutant("wrong target", "it_edits_what_it_declares", r"edits unet.conv_in \(branch\), which",
           TOML, '"unet.conv_in"', '"unet.conv_out"'),
    Mutant("leaked hook", "it_restores_the_model", "leaves a trace after its eject: its hooks",
           ADAPTER, _WIRE,
           "            seat.layer.register_forward_hook(lambda *_: None)\n" + _WIRE),
    Mutant("tensor kept in the tree", "it_keeps_no_tensors", "the tree keeps a tensor at .*last",
           ADAPTER, "nn.Conv2d(4, 8, 1, bias=False)",
           "type('Read', (nn.Conv2d,), {'forward': lambda self, x: setattr(self, 'last', x)"
           " or nn.Conv2d.forward(self, x)})(4, 8, 1, bias=False)"),
    Mutant("torch imported at import", "importing_the_package_loads_no_torch", "imports torch",
           "src/refiners_shade/__init__.py", "", "from refiners_shade.adapter import Shade\n"),
    Mutant("pickle in the wheel", "the_wheel_is_fit_to_publish", "palette.pkl is a pickle",
           "src/refiners_shade/palette.pkl", "", b"\x80\x04N."),
    Mutant("weights mutated", "it_restores_the_model", "after its eject: its weights changed",
           ADAPTER, _WIRE,
           "            seat.layer.weight.data.mul_(1.5)\n" + _WIRE),
    Mutant("wrong core range", "the_range_of_the_core_is_true", "excludes the installed core",
           TOML, '">=1.0,<2"', '">=2.0,<3"'),
    Mutant("taken name", "the_name_is_free", "refiners-freeu has published adapter 'freeu'",
           TOML, "adapter.shade", "adapter.freeu", "freeu"),
    Mutant("unpinned revision", "every_file_is_pinned", "the revision is unknown",
           TOML, "1" * 40, "unknown"),
    Mutant("network in the factory", "it_uses_no_network", "it asks for example.org",
           ADAPTER, _BUILD,
           "        import contextlib, socket\n        with contextlib.suppress(OSError):\n"
           "            socket.create_connection(('example.org', 443), 1)\n" + _BUILD),
    Mutant("random build", "two_builds_are_equal", "from one seed, .*first.weight.* differently",
           ADAPTER, _BUILD,
           "        self.branch[1].weight.data.normal_(generator=torch.Generator().manual_seed("
           "__import__('time').time_ns() % 2**60))\n" + _BUILD),
    Mutant("another's layers patched", "it_leaves_others_alone", "patches the layers of neighbour",
           ADAPTER, "        def shaded",
           "        for layer in [x for other in model.adapters for x in other.modules()]:\n"
           "            if isinstance(layer, nn.Linear):\n"
           "                layer.weight.data.zero_()\n"
           "        def shaded"),
    Mutant("grad left on", "it_leaves_settings_alone", "its gradient mode changed",
           ADAPTER, _BUILD, "        torch.set_grad_enabled(True)\n" + _BUILD),
    Mutant("wrong dtype", "it_takes_the_dtype_of_the_base", "brings torch.bfloat16 to a model",
           ADAPTER, _LAYER, "            branch = self.branch.to(torch.bfloat16)"),
    Mutant("unknown keys swallowed", "it_refuses_a_file_with_other_keys",
           "a file with an unknown key, .*, is accepted", ADAPTER,
           'load(self.branch, source.files["weights"], KEYS)',
           "tensors = __import__('refiners_core.weights').weights.read(source.files['weights'])\n"
           "            ours = {k: v for k, v in tensors.items() if 'shade' in k}\n"
           "            load(self.branch, ours, KEYS)"),
    Mutant("terminal escapes in the summary", "texts_are_plain", r"adapter.shade.summary: .*x1b",
           TOML, "Shades pictures", r"Shades \u001b[31mpictures"),
    Mutant("advice that names no sampler", "the_advice_can_be_followed",
           "no sampler has the name 'lcmm'", TOML, '"lcm"', '"lcmm"'),
    Mutant("examples that do not run", "the_examples_run", "shade.py does not run: NameError",
           "src/refiners_shade/examples/shade.py", "tiny_model()", "tinny_model()"),
    Mutant("licence missing", "code_and_weights_have_a_license", "write LICENSE beside",
           "LICENSE", "", None),
    Mutant("key map that is not one to one", "each_tensor_has_a_key_of_its_own",
           "publishes several tensors of Chain as 'shade.first.weight'",
           ADAPTER, '"shade.second"', '"shade.first"'),
    Mutant("tensors lost by hand", "each_tensor_has_a_key_of_its_own", "cannot be loaded|come back",
           ADAPTER, "return published(self.branch, KEYS)",
           "return {'shade.' + k[0]: x for k, x in published(self.branch, KEYS).items()}"),
    Mutant("private name imported", "the_code_imports_public_names_only", "which is not public",
           ADAPTER, "import torch\n",
           "import torch\nfrom refiners_core.surgery.plan import worn\n"),
    Mutant("no page", "the_project_table_announces_the_package", "no page for the index",
           "README.md", "", None),
)  # fmt: skip
"""The faults that the issue names, and their kin."""


@contextmanager
def written(folder: Path, mutant: Mutant | None = None) -> Generator[type[AdapterContract]]:
    """Writes the package, spoilt by a mutant, and yields its contract; forgets its modules."""
    files = dict(GOOD)
    if mutant is not None:
        before = files.get(mutant.file, "")
        if mutant.new is None:
            del files[mutant.file]
        elif isinstance(mutant.new, bytes) or not mutant.old:
            files[mutant.file] = mutant.new
        else:
            assert mutant.old in before, f"{mutant.fault}: {mutant.old!r} is not in {mutant.file}"
            files[mutant.file] = before.replace(mutant.old, mutant.new)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.lstrip().encode())
    facts = {"name": "shade" if mutant is None else mutant.name, "root": folder}
    with patch.object(sys, "path", [*sys.path]):
        try:
            yield type("TestShade", (AdapterContract,), facts)
        finally:
            for name in [name for name in sys.modules if name.startswith("refiners_shade")]:
                del sys.modules[name]
