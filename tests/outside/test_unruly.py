"""Broken packages: the others work, `list` goes on, `doctor` names each and its removal."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from .environment import PACKAGES, Environment, build

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clean")]
OTHERS = """
import json, warnings, refiners

warnings.simplefilter("ignore")
options = {"seed": 3, "steps": 1, "progress": False}
model = refiners.load_model("playground")
bare = model.generate("a heart", **options).tobytes()
with refiners.load_adapter("lora-ink").on(model):
    drawn = model.generate("a heart", **options).tobytes()
print(json.dumps([bare != drawn, model.generate("a heart", **options).tobytes() == bare]))
"""
HOOK = """
from refiners_core.hookspecs import hookimpl

@hookimpl
def {}(event):
    raise KeyError("x")
"""


class Fault(NamedTuple):
    """A file of the package that is replaced, its text, and what `doctor` prints of it."""

    file: str
    text: str
    words: str


FAULTS = {
    "raising": Fault("adapter.py", "raise RuntimeError('no luck')", "RuntimeError: no luck"),
    "exiting": Fault("adapter.py", "raise SystemExit(3)", "SystemExit: 3"),
    "garbled": Fault("adapter.py", "def (:\n", "SyntaxError"),
    "classless": Fault("adapter.py", "", "has no attribute 'Unruly'"),
    "hookless": Fault("hooks.py", "import nothing", "No module named 'nothing'"),
    "tomlless": Fault("adapter.toml", "schema = [", "adapter.toml"),
    "miskeyed": Fault("adapter.toml", "schema = 1\n[adapter.miskeyed]\nfactoy = 'a'\n", "factoy"),
    "missing": Fault("adapter.toml", "", "adapter.toml"),
}
"""The faults by the name of a package that has it."""
UNIMPORTABLE = ("raising", "exiting", "garbled", "classless")


def built(environment: Environment, folder: Path, faults: dict[str, Fault]) -> list[Path]:
    """Builds a package for each fault; returns the wheels."""
    sources: list[Path] = []
    for name, fault in faults.items():
        source = Path(shutil.copytree(PACKAGES / "unruly", folder / name))
        package = (source / "src/refiners_unruly").rename(source / f"src/refiners_{name}")
        for path in source.rglob("*.*"):
            if path.is_file():
                path.write_text(path.read_text().replace("unruly", name))
        if fault.text:
            (package / fault.file).write_text(fault.text)
        elif fault.file == "adapter.toml":
            (package / fault.file).unlink()
        else:
            (package / fault.file).write_text("")
        sources.append(source)
    wheels = folder / "wheels"
    wheels.mkdir()
    build(sources, wheels, environment)
    return sorted(wheels.glob("*.whl"))


def test_broken_packages_are_named_and_harm_no_other(environment: Environment, tmp_path: Path):
    names = [f"refiners-{name}" for name in FAULTS]
    environment.install(*built(environment, tmp_path, FAULTS))
    listed = environment.run("refiners", "list")
    assert "lora-ink" in listed.out
    for name in ("tomlless", "miskeyed", "missing"):
        assert f"refiners-{name}" in listed.text
    assert environment.script(OTHERS) == [True, True]
    advice = environment.report("refiners", "doctor", code=1)
    for name, fault in FAULTS.items():
        dist = f"refiners-{name}"
        problems = [entry for entry in advice["problems"] if entry["dist"] == dist]
        assert any(fault.words in entry["what"] for entry in problems), (name, advice)
        assert {entry["command"] for entry in problems} == {f"pip uninstall {dist}"}
    for name in UNIMPORTABLE:
        command = ("generate", "a heart", "--adapter", name)
        failed = environment.run("refiners", *command, code=1, folder=tmp_path)
        assert f"refiners_{name}.adapter" in failed.text
        assert "Traceback" not in failed.text
    environment.uninstall(*names)


@pytest.mark.parametrize("hook", ["before_inject", "after_inject"])
def test_a_hook_that_raises_is_named(hook: str, environment: Environment, tmp_path: Path):
    faults = {"unruly": Fault("hooks.py", HOOK.format(hook), "")}
    environment.install(*built(environment, tmp_path, faults))
    drawing = ("generate", "a heart", "--steps", "1")
    with_ink = (*drawing, "--adapter", "lora-ink")
    failed = environment.run("refiners", *with_ink, code=1, folder=tmp_path)
    assert "the hooks refiners-unruly:unruly failed: KeyError: 'x'" in failed.text
    assert "pip uninstall refiners-unruly" in failed.text
    environment.run("refiners", *drawing, folder=tmp_path)
    environment.uninstall("refiners-unruly")
    environment.run("refiners", *with_ink, folder=tmp_path)
