"""An adapter package of another author: install, use through every door, uninstall."""

from pathlib import Path

import pytest

from .environment import Environment

pytestmark = pytest.mark.slow
USE = """
import json, refiners, torch
from refiners_core import Condition

model = refiners.load_model("playground")

def draw(**conditions):
    return model.generate(
        "a heart", seed=3, steps=2, output="latents", progress=False, **conditions
    )

bare = draw()
adapter = refiners.load_adapter("warmth", model)
warm, absent = draw(), draw(conditions={adapter: Condition(scale=0)})
ink = refiners.load_adapter("lora-ink", model)
both = draw()
adapter.eject()
ink.eject()
print(json.dumps({
    "changes": not torch.equal(warm, bare),
    "absent": torch.equal(absent, bare),
    "together": not torch.equal(both, warm),
    "restored": torch.equal(draw(), bare),
}))
"""


@pytest.mark.usefixtures("clean")
def test_an_adapter_package_is_used_and_leaves_nothing_behind(
    environment: Environment, tmp_path: Path
):
    missing = environment.run("refiners", "info", "warmth", code=None)
    assert missing.code, missing.text
    environment.install("refiners-warmth")
    assert environment.script(USE, folder=tmp_path) == dict.fromkeys(
        ("changes", "absent", "together", "restored"), True
    )
    listed = environment.report("refiners", "list")
    assert "warmth" in {adapter["name"] for adapter in listed["adapters"]}
    assert "amber" in {entry["name"] for entry in listed["preprocessors"]}
    assert environment.run("refiners", "why", "warmth", "playground").code == 0
    assert environment.report("refiners", "warmth") == {"warmth": 2}
    command = ("generate", "a heart", "--adapter", "warmth:0.5", "--steps", "2", "--seed", "3")
    environment.run("refiners", *command, folder=tmp_path)
    environment.run("refiners", "preprocess", "amber", "out.png", folder=tmp_path)
    environment.run("refiners", "lock", "playground", "warmth", folder=tmp_path)
    environment.run("refiners", "sync", "--locked", "--offline", folder=tmp_path)
    environment.uninstall("refiners-warmth")
    gone = environment.run("refiners", "sync", "--locked", folder=tmp_path, code=None)
    assert gone.code
    assert "pip install refiners-warmth" in gone.text
