"""Every recipe is a configuration of an installed variant, trains in a few steps, and loads."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import refiners

TRAINING = Path(__file__).parents[1] / "training"
RECIPES = sorted((TRAINING / "recipe").glob("*.toml"))


MANIFEST = """
[adapter.instantid]
[[adapter.instantid.variant]]
weights = { weights = "a", control = "b", encoder = "c" }
[adapter.instantid.weights.a]
source = "hf:your-name/instantid"
file = "instantid.safetensors"
[adapter.instantid.weights.b]
source = "hf:your-name/instantid"
file = "ControlNetModel/a.safetensors"
[adapter.instantid.weights.c]
source = "pkg:refiners_playground/weights/c.safetensors"
"""


pytestmark = pytest.mark.usefixtures("scripts")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_names_a_lesson_and_a_variant_for_the_playground(path):
    from refiners_train import load_config
    from result import places

    config = load_config(path)
    assert config.adapter.name == path.stem
    assert config.output == f"runs/{path.stem}"
    module, _, function = config.data.source.partition(":")
    assert callable(getattr(import_module(module), function))
    files = places(path.stem)
    assert files["weights"].suffix == ".safetensors"
    missing = {role for role, file in files.items() if not file.is_file()}
    assert missing <= {"weights", "control", "encoder"}


def test_results_go_into_the_packages_that_name_them(tmp_path, monkeypatch):
    import result

    (tmp_path / "ControlNetModel").mkdir()
    (tmp_path / "instantid.safetensors").write_bytes(b"prompt")
    (tmp_path / "ControlNetModel" / "a.safetensors").write_bytes(b"control")
    (tmp_path / "adapter.toml").write_text(MANIFEST)
    package = tmp_path / "package" / "weights"
    targets = {role: package / role for role in ("weights", "control", "encoder")}
    monkeypatch.setattr(result, "places", lambda name: targets)
    assert result.install("instantid", tmp_path) == [targets["weights"], targets["control"]]
    assert targets["weights"].read_bytes() == b"prompt"
    assert targets["control"].read_bytes() == b"control"
    assert not targets["encoder"].exists()
    with pytest.raises(FileNotFoundError):
        result.install("instantid", tmp_path / "package")


def test_a_recipe_that_changed_is_trained_again(tmp_path):
    from result import fingerprint

    recipe = tmp_path / "a.toml"
    recipe.write_text("steps = 1")
    before = fingerprint(recipe)
    assert fingerprint(recipe) == before
    assert {"a.toml", "unet.safetensors"} <= before.keys()
    recipe.write_text("steps = 2")
    assert fingerprint(recipe) != before


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_trains_and_its_file_loads(path):
    command = [sys.executable, str(TRAINING / "check_recipe.py"), str(path), "--steps", "3"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert json.loads(ended.stdout.splitlines()[-1])["recipe"] == path.stem


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_trained_file_is_read_by_the_adapter_that_was_trained(path):
    from result import places

    files = places(path.stem)
    by_path = refiners.load_adapter(str(files["weights"]))
    assert type(by_path) is type(refiners.load_adapter(path.stem))
