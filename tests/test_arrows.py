"""Who may import whom, read off the sources: `plugins/* -> refiners_core <- refiners`.

A plugin can be moved out of the repository unchanged, `import refiners` costs no torch, one module
opens sockets, and the core knows nobody. Imports are read, not run.
"""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

CORE = (
    ("errors", "public", "tree.bare", "surgery.rollback"),
    ("argument_names", "condition", "picture", "surgery.hotswap", "surgery.key"),
    ("tree.context", "tree.naming"),
    ("tree.layer", "weights"),
    ("tree.editing", "tree.show"),
    ("tree.chain",),
    ("surgery.source", "surgery.tree_index", "tree.combinators"),
    ("layers", "surgery.placement", "surgery.selection"),
    ("surgery.overlay", "surgery.slot"),
    ("surgery.plan",),
    ("hookspecs",),
    ("surgery.adapter", "surgery.block_compiler"),
    ("model",),
    ("models",),
    ("testing",),
)
"""The modules and rooms of `refiners_core`: each imports only from rows above its own."""

LAZY = {("tree.layer", "tree.show"), ("tree.chain", "tree.show")}
"""What a function may import against that order: only a failing or printing call asks for it."""

NETWORK = {
    *("huggingface_hub", "httpx", "httpx2", "requests", "urllib3", "aiohttp", "socket", "ssl"),
    *("http", "ftplib", "smtplib", "urllib.request", "hf_xet", "fsspec"),
}
MAY_USE_NETWORK = (
    "registry/refiners/hub/client.py",
    "registry/refiners/hub/documents.py",  # reads for the client what is too small to be kept
    "registry/refiners/hub/errors.py",  # puts the client's errors into words
    "registry/refiners/hub/local_settings.py",  # names the setting that kept the client from asking
    "registry/refiners/testing/",  # the loopback Hub, for tests
)
MAY_PRINT = ("registry/refiners/cli/",)


class Import(NamedTuple):
    """One imported module or name, and how."""

    line: int
    name: str
    """Dotted: `refiners_core.tree.chain.Chain` for `from refiners_core.tree.chain import Chain`."""
    is_lazy: bool
    is_for_types: bool


def imports_of(tree: ast.Module, package: str) -> Iterator[Import]:
    """Yields everything that a module imports; `package` is what relative imports start from."""
    lazy = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for_types = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for statement in branch.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            home = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            names = [f"{home}.{alias.name}" for alias in node.names]
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith(("import_module", "__import__"))
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            names = [str(node.args[0].value)]
        for name in names:
            yield Import(node.lineno, name, node in lazy, node in for_types)


def faults(path: str, source: str) -> list[str]:
    """Returns what is wrong with a source file, given its path in the repository."""
    tree = ast.parse(source)
    parts = Path(path).with_suffix("").parts
    package = ".".join(p for p in parts[parts.index(home_of(path)) : -1])
    found = [
        f"{path}:{one.line}: {fault}"
        for one in imports_of(tree, package)
        if (fault := wrong_arrow(path, one))
    ]
    return found + [f"{path}:{line}: prints" for line in prints_in(path, tree)]


def home_of(path: str) -> str:
    """Returns the top-level package that a file belongs to."""
    parts = Path(path).parts
    if parts[0] == "plugins":
        return parts[3]
    return "refiners_core" if parts[0] == "refiners_core" else "refiners"


def wrong_arrow(path: str, one: Import) -> str:
    """Returns what is wrong with an import, or nothing."""
    home, top = home_of(path), one.name.partition(".")[0]
    if is_network(one.name) and not path.startswith(MAY_USE_NETWORK):
        return f"imports {one.name}, but hub/client.py alone opens sockets"
    if home == "refiners_core":
        if top == "refiners" or is_plugin(top):
            return f"imports {one.name}, but the core knows neither registry nor plugins"
        return wrong_within_core(path, one) if top == "refiners_core" else ""
    if is_plugin(top) and top != home:
        return f"imports {one.name}, but plugins are found by entry point, never by name"
    if home != "refiners" and top == "refiners":
        return f"imports {one.name}, but a plugin knows the core alone"
    if top == "refiners_core" and any(part.startswith("_") for part in one.name.split(".")):
        return f"imports {one.name}, which is not public"
    if home == "refiners" and not one.is_for_types and not one.is_lazy and brings_torch(one.name):
        return f"imports {one.name} at its top, but import refiners costs no torch"
    return ""


def is_plugin(top: str) -> bool:
    return top.startswith("refiners_") and top != "refiners_core"


def is_network(name: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in NETWORK)


def brings_torch(name: str) -> bool:
    """Whether importing this at the top of a registry module would load torch."""
    if name.partition(".")[0] != "refiners_core":
        return name.partition(".")[0] in ("torch", "safetensors", "diffusers", "transformers")
    light = ("API_VERSION", "errors", "hookspecs", "argument_names")
    return not name.removeprefix("refiners_core").lstrip(".").startswith(light)


def row_of(module: str) -> int:
    """Returns how far down a module of the core stands."""
    return next((i for i, row in enumerate(CORE) if module in row), -1)


def row_name(parts: tuple[str, ...]) -> str:
    """Returns the name by which a module of the core has a row: its own, or its room's."""
    return ".".join(parts[:2] if parts[0] in ("tree", "surgery") else parts[:1])


def wrong_within_core(path: str, one: Import) -> str:
    """Returns what is wrong with an import from one module of the core of another."""
    here = row_name(Path(path).with_suffix("").parts[1:])
    there = row_name(tuple(one.name.split(".")[1:]))
    if "__init__" in here or one.is_for_types or here == there:
        return ""
    if row_of(there) < 0:  # `from refiners_core import Chain` inside the core itself
        return f"imports {one.name}: say the module, refiners_core.<module>"
    if row_of(here) < 0:
        return f"is in no row of CORE; give refiners_core.{here} its place"
    if row_of(there) >= row_of(here) and not (one.is_lazy and (here, there) in LAZY):
        return f"imports {one.name}, which stands below it"
    return ""


def prints_in(path: str, tree: ast.Module) -> list[int]:
    """Returns the lines that write to a terminal where none should."""
    if path.startswith(MAY_PRINT):
        return []
    talkers = {"print", "sys.stdout.write", "sys.stderr.write", "click.echo", "rich.print"}
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in talkers
    ]


EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PROJECTS = sorted(ROOT.glob("plugins/*/pyproject.toml"))

# --- the repository --------------------------------------------------------------------------


def sources() -> list[str]:
    patterns = ("refiners_core/**/*.py", "registry/refiners/**/*.py", "plugins/*/src/**/*.py")
    return sorted(
        str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern)
    )


def test_every_arrow_points_the_right_way():
    found = [fault for path in sources() for fault in faults(path, (ROOT / path).read_text())]
    assert not found, "\n".join(found)


def test_all_three_parts_are_looked_at():
    homes = {home_of(path) for path in sources()}
    assert {"refiners_core", "refiners", "refiners_ipadapter"} <= homes


def test_every_module_of_the_core_has_its_row():
    parts = [Path(path).with_suffix("").parts[1:] for path in sources() if "_core" in path[:14]]
    modules = {row_name(own) for own in parts if own[-1] != "__init__" or len(own) > 1}
    modules -= {"tree.__init__", "surgery.__init__"}
    assert modules == {module for row in CORE for module in row}


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.parent.name)
def test_a_plugin_depends_on_no_other_plugin(project):
    wanted = tomllib.loads(project.read_text())["project"]["dependencies"]
    assert not [name for name in wanted if name.startswith(("refiners-", "refiners_"))]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_use_public_names_only(path):
    source, demonstration, _ = path.read_text().partition('\nif __name__ == "__main__":\n')
    assert demonstration
    assert faults("plugins/family/src/refiners_family/adapter.py", source) == []
    private = [
        f"{path.name}:{node.lineno}: .{node.attr}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and node.attr[1] != "_"
    ]
    assert not private, "\n".join(private)


def test_importing_refiners_loads_neither_torch_nor_a_plugin():
    program = "import sys, refiners; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT
    )
    loaded = set(done.stdout.split())
    assert not {"torch", "numpy", "huggingface_hub", "safetensors"} & loaded
    assert not [name for name in loaded if is_plugin(name)]


# --- the checker itself ----------------------------------------------------------------------

PLUGIN = "plugins/mine/src/refiners_mine/adapter.py"


@pytest.mark.parametrize(
    ("path", "source", "words"),
    [
        ("refiners_core/tree/chain.py", "import refiners", "knows neither registry nor plugins"),
        (
            "refiners_core/tree/chain.py",
            "import refiners_mine",
            "knows neither registry nor plugins",
        ),
        (
            "refiners_core/tree/chain.py",
            "import huggingface_hub",
            "hub/client.py alone opens sockets",
        ),
        (
            "refiners_core/weights/load.py",
            "from urllib.request import urlopen",
            "hub/client.py alone",
        ),
        (
            "refiners_core/errors.py",
            "from refiners_core.tree.layer import Layer",
            "stands below it",
        ),
        (
            "refiners_core/tree/layer.py",
            "from refiners_core.tree.chain import Chain",
            "stands below it",
        ),
        ("refiners_core/tree/layer.py", "from .chain import Chain", "stands below it"),
        (
            "refiners_core/tree/chain.py",
            "def f():\n    import refiners_core.surgery.plan",
            "stands below it",
        ),
        (
            "refiners_core/surgery/plan.py",
            "from refiners_core.surgery.adapter import Adapter",
            "stands below it",
        ),
        (
            "refiners_core/surgery/selection.py",
            "from refiners_core.surgery.plan import apply",
            "stands below it",
        ),
        ("refiners_core/layers/tokens.py", "from refiners_core.models import unet", "stands below"),
        ("refiners_core/tree/chain.py", "from refiners_core import Layer", "say the module"),
        ("refiners_core/novel.py", "from refiners_core.errors import TreeError", "no row of CORE"),
        ("refiners_core/tree/chain.py", "def f():\n    print(1)", "prints"),
        (PLUGIN, "import refiners", "a plugin knows the core alone"),
        (PLUGIN, "from refiners.errors import HubError", "a plugin knows the core alone"),
        (PLUGIN, "from refiners_other import Thing", "never by name"),
        (PLUGIN, "from refiners_core.surgery.plan import _wear", "is not public"),
        (PLUGIN, "from refiners_core._secret import thing", "is not public"),
        (PLUGIN, "import_module('refiners_other.adapter')", "never by name"),
        (PLUGIN, "import requests", "hub/client.py alone opens sockets"),
        (PLUGIN, "import sys\nsys.stdout.write('x')", "prints"),
        ("registry/refiners/load.py", "import refiners_ipadapter", "never by name"),
        ("registry/refiners/load.py", "import torch", "costs no torch"),
        ("registry/refiners/load.py", "from refiners_core import Chain", "costs no torch"),
        (
            "registry/refiners/load.py",
            "from refiners_core.tree.chain import Chain",
            "costs no torch",
        ),
        (
            "registry/refiners/sources/fetch.py",
            "from huggingface_hub import HfApi",
            "hub/client.py alone",
        ),
        ("registry/refiners/load.py", "import click\nclick.echo('x')", "prints"),
    ],
)
def test_a_wrong_arrow_is_found(path, source, words):
    (fault,) = faults(path, source)
    assert words in fault
    assert fault.startswith(f"{path}:")


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("refiners_core/tree/chain.py", "from refiners_core.tree.layer import Layer"),
        ("refiners_core/tree/chain.py", "def f():\n    from refiners_core.tree.show import show"),
        (
            "refiners_core/surgery/plan.py",
            "if TYPE_CHECKING:\n    from refiners_core.surgery.adapter import Adapter",
        ),
        ("refiners_core/models/unet/unet.py", "from refiners_core.models.unet.block import X"),
        (PLUGIN, "from refiners_core import Adapter\nfrom refiners_core.models.unet import UNet"),
        (PLUGIN, "from refiners_mine.network import Network\nfrom .network import Network"),
        (PLUGIN, "from refiners_core.testing import LAWS\nimport urllib.parse"),
        ("registry/refiners/load.py", "def f():\n    from refiners_core import Chain"),
        ("registry/refiners/load.py", "from refiners_core import API_VERSION\nimport msgspec"),
        ("registry/refiners/hub/client.py", "import huggingface_hub"),
        ("registry/refiners/cli/report.py", "print('hello')"),
    ],
)
def test_a_right_arrow_is_let_through(path, source):
    assert faults(path, source) == []
