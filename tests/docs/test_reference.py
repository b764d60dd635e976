"""Every public name has a page, and the pages are built without a warning."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from sphinx.util.inventory import InventoryFile

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_on_the_page_of_its_module(reference: ModuleType):
    pages = reference.pages(reference.public())
    for module, names in reference.public().items():
        for name in names:
            shown = (
                f":: {module}.{name}\n",
                f":: {name}\n   :module: {module}\n",
                f"`{name}`: see ",
            )
            assert any(each in pages[module] for each in shown)


def test_a_name_of_two_modules_is_documented_once(reference: ModuleType):
    pages = reference.pages(
        {"refiners_core": ("Condition",), "refiners_core.condition": ("Condition",)}
    )
    assert "autoclass:: refiners_core.Condition" in pages["refiners_core"]
    assert "{py:obj}`refiners_core.Condition`" in pages["refiners_core.condition"]
    assert "autoclass" not in pages["refiners_core.condition"]


def test_a_value_has_the_docstring_of_the_module_that_assigns_it(reference: ModuleType):
    page = reference.pages(reference.public())["refiners_core.models.diffusion"]
    assert ".. py:data:: COND\n   :module: refiners_core.models.diffusion\n\n   The branch" in page


@pytest.mark.slow  # 20 s
def test_the_pages_are_built_without_a_warning(reference: ModuleType, tmp_path: Path):
    options = ["--fail-on-warning", "--keep-going", "--quiet", "--fresh-env"]
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, DOCS, tmp_path], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    inventory = InventoryFile.loads((tmp_path / "objects.inv").read_bytes(), uri="").data
    documented = {name for kind in inventory if kind.startswith("py:") for name in inventory[kind]}
    public = {
        f"{module}.{name}": reference.definition(module, name)
        for module, names in reference.public().items()
        for name in names
    }
    covered = {definition for name, definition in public.items() if name in documented}
    assert {name for name, definition in public.items() if definition not in covered} == set()
