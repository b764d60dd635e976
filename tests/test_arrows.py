"""The import rules, checked on the sources: `plugins/* -> refiners_core <- refiners`, and the kit
of tests above both, which none of them imports.

A plugin can be moved out of the repository unchanged, `import refiners` does not import torch, one
module opens sockets, and the core imports neither registry nor plugins. Imports are read, not run.
"""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from refiners_core.public import MODULES

ROOT = Path(__file__).parents[1]

CORE = (
    (
        "deprecation",
        "errors",
        "public",
        "sampler_name",
        "tree.bare_tree",
        "surgery.rollback",
        "surgery.wearable",
    ),
    ("option",),
    ("preprocessor", "scale"),
    ("advice", "argument_names", "condition", "origin", "picture", "recipe_image"),
    ("surgery.hotswap", "surgery.key", "tree.memory", "tree.row_scale"),
    ("tree.context", "tree.naming"),
    ("tree.layer", "weights"),
    ("tree.editing", "tree.place", "tree.show"),
    ("tree.chain",),
    ("tree.role",),
    ("surgery.abreast", "surgery.source", "surgery.tree_index", "tree.combinators", "tree.recall"),
    ("layers", "surgery.placement", "surgery.selection"),
    ("surgery.placed",),
    ("surgery.merging", "surgery.overlay", "surgery.slot"),
    ("surgery.plan",),
    ("hookspecs",),
    ("surgery.adapter", "surgery.block_checkpoint", "surgery.block_compiler"),
    ("compose", "model"),
    ("command", "measure", "models"),
    ("testing",),
)
"""The modules and folders of `refiners_core`; each imports only from rows above its row."""

LAZY = {("tree.layer", "tree.show"), ("tree.chain", "tree.show")}
"""The imports inside functions against that order: only a failing or printing call runs them."""

LAZY_CIRCLES = {
    "refiners_core.tree.layer refiners_core.tree.show": "only a failing call needs the printer",
}
"""The circles that an import inside a function helps to close, each with a reason."""

EAGER_CIRCLES: dict[str, str] = {}
"""The circles that imports at the top of modules close, those for types included."""

ROOMS = (
    ("errors",),
    ("host",),
    ("manifest",),
    ("installed",),
    ("hub",),
    ("catalog",),
    ("recognition",),
    ("choose",),
    ("sources",),
    ("preprocessing",),
    ("recipe",),
    ("authoring", "doctor", "load", "measure", "page", "refresh", "sync"),
    ("remake",),
    ("sheet",),
    ("exhibit",),
    ("cli",),
    ("testing",),
)
"""The rooms and verbs of `refiners`: each imports only from rows above its own, lazily or not."""

NETWORK = {
    *("huggingface_hub", "httpx", "httpx2", "requests", "urllib3", "aiohttp", "socket", "ssl"),
    *("http", "ftplib", "smtplib", "urllib.request", "hf_xet", "fsspec"),
}
MAY_USE_NETWORK = (
    "registry/refiners/hub/client.py",
    "registry/refiners/hub/documents.py",  # reads small files for the client
    "registry/refiners/hub/request.py",  # sends one request, with a limit on its answer
    "registry/refiners/hub/errors.py",  # puts the client's errors into words
    "registry/refiners/hub/search.py",  # asks the client for a list of repositories
    "registry/refiners/hub/card.py",  # lets the client parse a text; opens no socket
    "registry/refiners/hub/local_settings.py",  # names the setting that kept the client from asking
    "registry/refiners/testing/",  # the loopback Hub, for tests
    "testkit/src/refiners_testkit/network.py",  # refuses connections
)
MAY_PRINT = ("registry/refiners/cli/",)


class Import(NamedTuple):
    """One imported module or name, and its kind of import."""

    line: int
    name: str
    """Dotted: `refiners_core.tree.chain.Chain` for `from refiners_core.tree.chain import Chain`."""
    is_lazy: bool
    is_for_types: bool


def imports_of(tree: ast.Module, package: str) -> Iterator[Import]:
    """Yields the imports of a module; relative ones start from `package`."""
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
    """Returns the faults of a source file, given its path in the repository."""
    tree = ast.parse(source)
    parts = Path(path).with_suffix("").parts
    package = ".".join(p for p in parts[parts.index(home_of(path)) : -1])
    wrong = [
        f"{path}:{arrow.line}: {fault}"
        for arrow in imports_of(tree, package)
        if (fault := wrong_arrow(path, arrow))
    ]
    return wrong + [f"{path}:{line}: prints" for line in prints_in(path, tree)]


def home_of(path: str) -> str:
    """Returns the top-level package that a file belongs to."""
    parts = Path(path).parts
    if parts[0] == "plugins":
        return parts[3]
    if parts[0] in ("testkit", "train"):
        return parts[2]
    return "refiners_core" if parts[0] == "refiners_core" else "refiners"


def wrong_arrow(path: str, arrow: Import) -> str:
    """Returns the fault of an import; empty if it is allowed."""
    home, top = home_of(path), arrow.name.partition(".")[0]
    if is_network(arrow.name) and not path.startswith(MAY_USE_NETWORK):
        return f"imports {arrow.name}, but hub/client.py alone opens sockets"
    if home == "refiners_core":
        if top == "refiners" or is_plugin(top):
            return f"imports {arrow.name}, but the core imports neither registry nor plugins"
        return wrong_within_core(path, arrow) if top == "refiners_core" else ""
    if is_plugin(top) and top != home:
        return f"imports {arrow.name}, but plugins are found by entry point, never by name"
    if home not in ("refiners", "refiners_testkit", "refiners_train") and top == "refiners":
        return f"imports {arrow.name}, but a plugin imports the core alone"
    if top == "refiners_core" and any(part.startswith("_") for part in arrow.name.split(".")):
        return f"imports {arrow.name}, which is not public"
    if home == "refiners" and top == "refiners":
        return wrong_between_rooms(path, arrow)
    if (
        home == "refiners"
        and not arrow.is_for_types
        and not arrow.is_lazy
        and brings_torch(arrow.name)
    ):
        return f"imports {arrow.name} at its top, but import refiners must not load torch"
    return ""


def module_of(path: str) -> str:
    """Returns the dotted name of a source file of the core or the registry."""
    parts = Path(path).with_suffix("").parts
    parts = parts[parts.index(home_of(path)) :]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circles(sources: Mapping[str, str], *, lazy: bool) -> set[str]:
    """Returns the groups of modules that import each other, directly or through others.

    Args:
        sources: The text of each file, by its path in the repository.
        lazy: Whether imports inside functions count.

    Returns:
        For each circle, its modules, sorted and joined by spaces.
    """
    paths = {module_of(path): path for path in sources}
    arrows: dict[str, set[str]] = {}
    for module, path in paths.items():
        package = module if path.endswith("__init__.py") else module.rpartition(".")[0]
        names = [
            arrow.name
            for arrow in imports_of(ast.parse(sources[path]), package)
            if lazy or not arrow.is_lazy
        ]
        arrows[module] = {home for name in names if (home := holder(name, paths))} - {module}
    reached = {module: reachable(module, arrows) for module in arrows}
    return {
        " ".join(sorted(other for other in reached[module] if module in reached[other]))
        for module in arrows
        if module in reached[module]
    }


def holder(name: str, modules: Collection[str]) -> str:
    """Returns the module that an imported name belongs to; nothing for another package's."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def reachable(module: str, arrows: Mapping[str, set[str]]) -> set[str]:
    """Returns the modules that arrows lead to from a module, itself only if one leads back."""
    reached: set[str] = set()
    frontier = [module]
    while frontier:
        new = arrows[frontier.pop()] - reached
        reached |= new
        frontier += new
    return reached


def is_plugin(top: str) -> bool:
    return top.startswith("refiners_") and top != "refiners_core"


def is_network(name: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in NETWORK)


def brings_torch(name: str) -> bool:
    """Whether importing this module at the top of a registry module loads torch."""
    if name.partition(".")[0] != "refiners_core":
        return name.partition(".")[0] in ("torch", "safetensors", "diffusers", "transformers")
    light = (
        *("API_VERSION", "advice", "argument_names", "command", "errors", "hookspecs", "public"),
        *("measure", "recipe_image", "sampler_name"),
    )
    return not name.removeprefix("refiners_core").lstrip(".").startswith(light)


def row_of(module: str) -> int:
    """Returns the row of a module of the core; -1 if it has none."""
    return next((i for i, row in enumerate(CORE) if module in row), -1)


def row_name(parts: tuple[str, ...]) -> str:
    """Returns the name under which a module of the core has a row: of itself or of its folder."""
    return ".".join(parts[:2] if parts[0] in ("tree", "surgery") else parts[:1])


def wrong_within_core(path: str, arrow: Import) -> str:
    """Returns the fault of an import between modules of the core; empty if it is allowed."""
    importer = row_name(Path(path).with_suffix("").parts[1:])
    imported = row_name(tuple(arrow.name.split(".")[1:]))
    if "__init__" in importer or importer == imported:
        return ""
    if row_of(imported) < 0:  # `from refiners_core import Chain` inside the core itself
        return f"imports {arrow.name}: name its module, refiners_core.<module>"
    if row_of(importer) < 0:
        return f"is in no row of CORE; add refiners_core.{importer}"
    if row_of(imported) >= row_of(importer) and not (
        arrow.is_lazy and (importer, imported) in LAZY
    ):
        return f"imports {arrow.name}, which is in a lower row"
    return ""


def wrong_between_rooms(path: str, imported: Import) -> str:
    """Returns what is wrong with an import from one room of the registry of another."""
    importer = Path(path).with_suffix("").parts[2]
    room = imported.name.split(".")[1]
    if importer in ("__init__", "__main__") or importer == room:
        return ""
    rows = {name: number for number, row in enumerate(ROOMS) for name in row}
    if importer not in rows:
        return f"is in no row of ROOMS; give refiners.{importer} its place"
    if room not in rows or rows[room] >= rows[importer]:
        return f"imports {imported.name}, but the room {importer} is above {room} in ROOMS"
    return ""


def prints_in(path: str, tree: ast.Module) -> list[int]:
    """Returns the lines of a module that write to the terminal without permission."""
    if path.startswith(MAY_PRINT):
        return []
    talkers = {"print", "sys.stdout.write", "sys.stderr.write", "click.echo", "rich.print"}
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in talkers
    ]


EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SHIPPED = sorted(ROOT.glob("plugins/*/src/*/examples/*.py"))
PROJECTS = sorted(ROOT.glob("plugins/*/pyproject.toml"))

# --- the repository --------------------------------------------------------------------------


def sources() -> list[str]:
    patterns = (
        *("refiners_core/**/*.py", "registry/refiners/**/*.py"),
        *("plugins/*/src/**/*.py", "testkit/src/**/*.py", "train/src/**/*.py"),
    )
    return sorted(
        str(path.relative_to(ROOT))
        for pattern in patterns
        for path in ROOT.glob(pattern)
        if path.parent.name != "examples"  # scripts for readers, who use the registry
    )


def test_every_import_is_allowed():
    wrong = [fault for path in sources() for fault in faults(path, (ROOT / path).read_text())]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("lazy", "known"), [(False, EAGER_CIRCLES), (True, LAZY_CIRCLES)])
def test_the_circles_of_imports_are_those_listed(lazy, known):
    ours = (path for path in sources() if not path.startswith(("plugins/", "testkit/", "train/")))
    texts = {path: (ROOT / path).read_text() for path in ours}
    circles_now = circles(texts, lazy=lazy)
    assert not circles_now - known.keys(), "new circles of imports"
    assert not known.keys() - circles_now, "circles that no longer exist: take them off the list"


def test_all_four_parts_are_checked():
    homes = {home_of(path) for path in sources()}
    assert {"refiners_core", "refiners", "refiners_ipadapter", "refiners_testkit"} <= homes


def test_every_module_of_the_core_has_a_row():
    parts = [Path(path).with_suffix("").parts[1:] for path in sources() if "_core" in path[:14]]
    modules = {row_name(names) for names in parts if names[-1] != "__init__" or len(names) > 1}
    modules -= {"tree.__init__", "surgery.__init__"}
    assert modules == {module for row in CORE for module in row}


def test_every_room_of_the_registry_has_its_row():
    modules = {Path(path).with_suffix("").parts[2] for path in sources() if "registry/" in path}
    assert modules - {"__init__", "__main__"} == {room for row in ROOMS for room in row}


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.parent.name)
def test_a_plugin_depends_on_no_other_plugin(project):
    wanted = tomllib.loads(project.read_text())["project"]["dependencies"]
    ours = [name for name in wanted if name.startswith(("refiners-", "refiners_"))]
    assert ours == ["refiners-core>=1.0.0.dev0,<2"]


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


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_examples_of_a_package_import_what_its_users_may(path):
    package = path.parents[1].name
    names = [arrow.name for arrow in imports_of(ast.parse(path.read_text()), package)]
    tops = {name.partition(".")[0] for name in names}
    assert tops <= {*sys.stdlib_module_names, "refiners", "refiners_core", "PIL", "torch", package}
    homes = {name.rpartition(".")[0] for name in names if name.startswith("refiners")}
    assert homes - {""} <= {*MODULES, *(home for home in homes if home.startswith(package))}


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
KIT = "testkit/src/refiners_testkit/check.py"


@pytest.mark.parametrize(
    ("path", "source", "words"),
    [
        ("refiners_core/tree/chain.py", "import refiners", "imports neither registry nor plugins"),
        (
            "refiners_core/tree/chain.py",
            "import refiners_mine",
            "imports neither registry nor plugins",
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
            "is in a lower row",
        ),
        (
            "refiners_core/tree/layer.py",
            "from refiners_core.tree.chain import Chain",
            "is in a lower row",
        ),
        ("refiners_core/tree/layer.py", "from .chain import Chain", "is in a lower row"),
        (
            "refiners_core/tree/chain.py",
            "def f():\n    import refiners_core.surgery.plan",
            "is in a lower row",
        ),
        (
            "refiners_core/surgery/plan.py",
            "from refiners_core.surgery.adapter import Adapter",
            "is in a lower row",
        ),
        (
            "refiners_core/surgery/plan.py",
            "if TYPE_CHECKING:\n    from refiners_core.surgery.adapter import Adapter",
            "is in a lower row",
        ),
        (
            "refiners_core/surgery/selection.py",
            "from refiners_core.surgery.plan import apply",
            "is in a lower row",
        ),
        (
            "refiners_core/layers/tokens.py",
            "from refiners_core.models import unet",
            "is in a lower row",
        ),
        ("refiners_core/tree/chain.py", "from refiners_core import Layer", "name its module"),
        ("refiners_core/novel.py", "from refiners_core.errors import TreeError", "no row of CORE"),
        ("refiners_core/tree/chain.py", "def f():\n    print(1)", "prints"),
        (PLUGIN, "import refiners", "a plugin imports the core alone"),
        (PLUGIN, "import refiners_testkit", "never by name"),
        ("registry/refiners/load.py", "import refiners_testkit", "never by name"),
        (KIT, "import refiners_mine", "never by name"),
        (KIT, "import socket", "hub/client.py alone opens sockets"),
        (PLUGIN, "from refiners.errors import HubError", "a plugin imports the core alone"),
        (PLUGIN, "from refiners_other import Thing", "never by name"),
        (PLUGIN, "from refiners_core.surgery.plan import _wear", "is not public"),
        (PLUGIN, "from refiners_core._secret import thing", "is not public"),
        (PLUGIN, "import_module('refiners_other.adapter')", "never by name"),
        (PLUGIN, "import requests", "hub/client.py alone opens sockets"),
        (PLUGIN, "import sys\nsys.stdout.write('x')", "prints"),
        ("registry/refiners/load.py", "import refiners_ipadapter", "never by name"),
        ("registry/refiners/load.py", "import torch", "must not load torch"),
        ("registry/refiners/load.py", "from refiners_core import Chain", "must not load torch"),
        (
            "registry/refiners/load.py",
            "from refiners_core.tree.chain import Chain",
            "must not load torch",
        ),
        (
            "registry/refiners/sources/fetch.py",
            "from huggingface_hub import HfApi",
            "hub/client.py alone",
        ),
        ("registry/refiners/load.py", "import click\nclick.echo('x')", "prints"),
        ("registry/refiners/hub/client.py", "from refiners.choose import lock", "is above choose"),
        (
            "registry/refiners/catalog/copy.py",
            "def f():\n    from refiners.refresh import refresh",
            "is above refresh",
        ),
        (
            "registry/refiners/errors.py",
            "if TYPE_CHECKING:\n    from refiners.choose.compatibility import Rejected",
            "is above choose",
        ),
        ("registry/refiners/load.py", "from refiners import adapters", "is above adapters"),
        ("registry/refiners/novel/thing.py", "import refiners.errors", "no row of ROOMS"),
    ],
)
def test_a_wrong_import_is_reported(path, source, words):
    (fault,) = faults(path, source)
    assert words in fault
    assert fault.startswith(f"{path}:")


@pytest.mark.parametrize(
    ("statement", "eager"),
    [
        ("import refiners_core.b", True),
        ("from refiners_core import b", True),
        ("from .b import thing", True),
        ("if TYPE_CHECKING:\n    from refiners_core.b import Thing", True),
        ("def f():\n    from refiners_core.b import thing", False),
        ("def f():\n    import_module('refiners_core.b')", False),
    ],
)
def test_a_circle_of_imports_is_recognised(statement, eager):
    texts = {
        "refiners_core/a.py": statement,
        "refiners_core/b.py": "from refiners_core.c import Thing",
        "refiners_core/c/__init__.py": "from refiners_core.a import thing\nimport torch",
        "refiners_core/d.py": "import refiners_core.a",
    }
    circle = {"refiners_core.a refiners_core.b refiners_core.c"}
    assert circles(texts, lazy=True) == circle
    assert circles(texts, lazy=False) == (circle if eager else set())


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("refiners_core/tree/chain.py", "from refiners_core.tree.layer import Layer"),
        ("refiners_core/tree/chain.py", "def f():\n    from refiners_core.tree.show import show"),
        (
            "registry/refiners/load.py",
            "if TYPE_CHECKING:\n    from refiners_core.surgery.adapter import Adapter",
        ),
        ("refiners_core/models/unet/unet.py", "from refiners_core.models.unet.block import X"),
        (PLUGIN, "from refiners_core import Adapter\nfrom refiners_core.models.unet import UNet"),
        (KIT, "import refiners\nfrom refiners_core import Adapter\nimport refiners_testkit.check"),
        (PLUGIN, "from refiners_mine.network import Network\nfrom .network import Network"),
        (PLUGIN, "from refiners_core.testing import LAWS\nimport urllib.parse"),
        ("registry/refiners/load.py", "def f():\n    from refiners_core import Chain"),
        ("registry/refiners/load.py", "from refiners_core import API_VERSION\nimport msgspec"),
        ("registry/refiners/hub/client.py", "import huggingface_hub"),
        ("registry/refiners/cli/report.py", "print('hello')"),
        ("registry/refiners/cli/report.py", "from refiners.load import load_model"),
        ("registry/refiners/hub/client.py", "from refiners.hub.errors import explained"),
        ("registry/refiners/__init__.py", "from refiners.load import load_model"),
    ],
)
def test_an_allowed_import_is_accepted(path, source):
    assert faults(path, source) == []
