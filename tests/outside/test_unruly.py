"""A broken package: the others work, `list` goes on, and `doctor` names it and its removal."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from .environment import PACKAGES, Environment, build

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clean")]
OTHERS = """
import json, sys, warnings, refiners

warnings.simplefilter("ignore")
model = refiners.load_model("playground")
bare = model.generate("a heart", seed=3, steps=1, progress=False).tobytes()
with refiners.load_adapter("lora-ink").on(model):
    drawn = model.generate("a heart", seed=3, steps=1, progress=False).tobytes()
print(json.dumps([bare != drawn, model.generate(
    "a heart", seed=3, steps=1, progress=False).tobytes() == bare]))
"""
HOOK = (
    "from refiners_core.hookspecs import hookimpl\n@hookimpl\ndef {}(event): raise KeyError('x')\n"
)


class Fault(NamedTuple):
    """A file of the package that is replaced, its text, and what `doctor` prints."""

    file: str
    text: str
    words: str
    loads: str = ""
    """What loading its own adapter prints; empty where the adapter does not come to that."""


FAULTS = {
    "raises at import": Fault(
        "adapter.py", "raise RuntimeError('no luck')", "RuntimeError: no luck", "no luck"
    ),
    "exits at import": Fault("adapter.py", "raise SystemExit(3)", "SystemExit: 3", "SystemExit"),
    "has a syntax error": Fault("adapter.py", "def (:\n", "SyntaxError", "SyntaxError"),
    "lacks the class": Fault("adapter.py", "", "Unruly", "Unruly"),
    "has hooks that fail to import": Fault("hooks.py", "import nothing", "No module named"),
    "has a manifest that is not TOML": Fault("adapter.toml", "schema = [", "adapter.toml"),
    "has a manifest with a wrong key": Fault(
        "adapter.toml", 'schema = 1\n[adapter.unruly]\nfactoy = "a"\n', "factoy"
    ),
    "has no manifest": Fault("adapter.toml", "", ""),
}


def installed(environment: Environment, tmp_path: Path, file: str, text: str) -> None:
    source = Path(shutil.copytree(PACKAGES / "unruly", tmp_path / "unruly"))
    (source / "src/refiners_unruly" / file).write_text(text)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    build([source], wheels, environment)
    environment.install(*wheels.glob("*.whl"))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_package_is_named_and_harms_no_other(
    fault: str, environment: Environment, tmp_path: Path
):
    file, text, words, loads = FAULTS[fault]
    installed(environment, tmp_path, file, text)
    listed = environment.run("refiners", "list")
    assert "lora-ink" in listed.out
    assert environment.script(OTHERS) == [True, True]
    advice = environment.run("refiners", "doctor", code=1)
    assert "refiners-unruly" in advice.text
    assert words in advice.text
    assert "pip uninstall refiners-unruly" in advice.text
    if loads:
        own = environment.run(
            "refiners", "generate", "a heart", "--adapter", "unruly", code=1, folder=tmp_path
        )
        assert loads in own.text
        assert "refiners-unruly" in own.text
        assert "Traceback" not in own.text
    if file == "adapter.toml":
        assert "refiners-unruly" in listed.text
    environment.uninstall("refiners-unruly")


@pytest.mark.parametrize("hook", ["before_inject", "after_inject"])
def test_a_hook_that_raises_is_named(hook: str, environment: Environment, tmp_path: Path):
    installed(environment, tmp_path, "hooks.py", HOOK.format(hook))
    done = environment.run(
        "refiners", "generate", "a heart", "--adapter", "lora-ink", code=None, folder=tmp_path
    )
    assert done.code
    assert f"hook {hook} of refiners-unruly:unruly" in done.text
    assert "pip uninstall refiners-unruly" in done.text
    environment.run("refiners", "generate", "a heart", "--steps", "1", folder=tmp_path)
    environment.uninstall("refiners-unruly")
    environment.run(
        "refiners", "generate", "a heart", "--adapter", "lora-ink", "--steps", "1", folder=tmp_path
    )
