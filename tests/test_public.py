"""The public boundary: one list of modules and names, which plugins and their tests keep to."""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import refiners
from click.testing import CliRunner
from refiners.cli import main

import refiners_core
from refiners_core.public import MODULES, public_names

ROOT = Path(__file__).parents[1]
LISTED = ROOT / "tests/api.txt"
PATTERNS = (
    "plugins/*/src/**/*.py",
    "plugins/*/tests/**/*.py",
    "plugins/*/training/**/*.py",
    "examples/*.py",
)
FILES = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern))


def imported(source: str) -> Iterator[tuple[str, str]]:
    """Yields module and name of each import from the core or the registry."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [(alias.name, "") for alias in node.names]
        else:
            continue
        yield from (
            (module, name)
            for module, name in names
            if module.partition(".")[0] in ("refiners", "refiners_core")
        )


def private(source: str) -> list[str]:
    """Returns the imports of a source that are outside the public list."""
    return [
        f"{module}.{name}".rstrip(".")
        for module, name in imported(source)
        if f"{module}.{name}".rstrip(".") not in MODULES
        and not (module in MODULES and name in public_names(module))
    ]


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_exists_and_is_documented(module):
    home = import_module(module)
    assert home.__doc__
    for name in public_names(module):
        value = getattr(home, name)
        assert not name.startswith("_")
        assert value.__doc__ or not callable(value), f"{module}.{name} has no docstring"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_plugins_their_tests_and_examples_import_public_names_only(path):
    assert private(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "from refiners_core.surgery.plan import worn",
        "from refiners_core.layers import attention",
        "from refiners_core.layers.attention import Attend",
        "import refiners_core.tree.chain",
        "from refiners_core import Nothing",
        "from refiners.load import load_model",
    ],
)
def test_what_is_not_public_is_noticed(source):
    assert len(private(source)) == 1


def test_public_names_have_not_changed_since_this_version_of_the_api():
    printed = CliRunner().invoke(main, ["api"], catch_exceptions=False).output
    assert printed == LISTED.read_text(), (
        "The public names changed. If none went away, run: refiners api > tests/api.txt; "
        "otherwise raise API_VERSION first."
    )


def test_the_public_modules_and_names_are_what_dir_shows():
    shown = {name for name in dir(refiners_core) if not name.startswith("__")}
    rooms = {module.split(".")[1] for module in MODULES if module.startswith("refiners_core.")}
    assert shown == {*public_names("refiners_core"), *rooms}
    assert {name for name in dir(refiners) if not name.startswith("__")} == {
        *public_names("refiners"),
        "errors",
        "testing",
    }
    assert refiners_core.weights.load is not None


def test_another_module_is_not_public():
    with pytest.raises(KeyError):
        public_names("refiners_core.tree.chain")
