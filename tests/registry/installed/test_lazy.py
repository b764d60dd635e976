"""Importing the package and reading manifests load neither torch nor plugins."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "huggingface_hub", "httpx2", "safetensors", "rich", "click")


def loaded_by(code: str) -> set[str]:
    """Runs code in a new process and returns the heavy modules and plugins that it loaded."""
    script = f"{code}\nimport sys\nprint('LOADED', *sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    modules = process.stdout.rpartition("LOADED")[2].split()
    plugins = {
        name
        for name in modules
        if name.startswith("refiners_") and name.partition(".")[0] != "refiners_core"
    }
    return plugins | {name for name in HEAVY if name in modules}


def test_importing_loads_no_heavy_module() -> None:
    assert loaded_by("import refiners") == set()


def test_reading_loads_no_torch_and_no_plugin() -> None:
    code = "import refiners; refiners.adapters(); refiners.models(); refiners.broken()"
    assert loaded_by(code) == set()


def test_an_error_can_be_caught_without_torch() -> None:
    code = (
        "import refiners\n"
        "try:\n    refiners.load_adapter\n    refiners.load.find_adapter('no-such-adapter')\n"
        "except refiners.RefinersError as error:\n    print(error)"
    )
    # its constants have the folder of a fetched catalog; the client stays unloaded
    assert loaded_by(code) <= {"huggingface_hub"}


@pytest.mark.parametrize(
    "arguments",
    [("list",), ("info", "controlnet-canny"), ("tree", "nope"), ("why", "controlnet-canny")],
)
def test_reading_commands_load_no_torch(arguments: tuple[str, ...]) -> None:
    code = f"from refiners.cli import main\nmain({list(arguments)!r}, standalone_mode=False)"
    assert loaded_by(code) & {"torch", "httpx2"} == set()


def test_unknown_attributes_are_attribute_errors() -> None:
    import refiners

    assert "load_model" in dir(refiners)
    with pytest.raises(AttributeError, match="no attribute 'load_modell'"):
        _ = refiners.load_modell
