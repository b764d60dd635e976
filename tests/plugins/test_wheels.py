"""Each package can be installed alone, from wheels, and works.

An environment is a folder with the wheels of the core and one plugin, and the installed
third-party packages; nothing else of this repository is on the path.
"""

import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml"))
USUAL = ("lora", "playground")
"""The packages that are tried in every run; the others are tried in slow ones."""
LEFT_OUT = shutil.ignore_patterns(
    *("plugins", "benchmarks", "tests", "training", "docs", "build", "*.egg-info", ".*")
)
BUILD = """
import os, sys
sys.path.insert(0, sys.argv[1])
from setuptools import build_meta
for folder in sys.argv[2:]:
    os.chdir(folder)
    build_meta.build_wheel("dist")
"""
TRY = """
import inspect, json, sys
sys.path[:0] = sys.argv[1:]
import refiners
from refiners.installed.factory import import_reference
from refiners.load import outline

OURS = {"playground", "playground-writer"}  # in a wheel that is not there
worn, kinds = {}, {}
for adapter in refiners.adapters():
    for base in {"sd15" if base == "any" else base for base in adapter.spec.bases} - OURS:
        kinds[adapter.spec.factory, base] = adapter
for (factory, base), adapter in kinds.items():
    model = outline(base)
    make = import_reference(factory, adapter.dist)  # untrained: no file is needed
    required = [p for p in inspect.signature(make).parameters.values() if p.default is p.empty]
    if any(p.kind is p.KEYWORD_ONLY for p in required):  # another model, for example
        continue
    make(name=adapter.name).inject(model)
    before = model.adapters
    model.eject_all()
    worn[f"{adapter.name} on {base}"] = [len(before), len(model.adapters)]
preprocessed = {}
for preprocessor in refiners.preprocessors():
    if not preprocessor.spec.weights and preprocessor.name != "keypoints":
        from PIL import Image

        function = refiners.load_preprocessor(preprocessor.name)
        preprocessed[preprocessor.name] = function(Image.new("RGB", (8, 6))).size
plugins = (*refiners.adapters(), *refiners.models(), *refiners.preprocessors())
made = wrote = None
if "playground" in {model.name for model in refiners.models()}:
    made = refiners.load_model("playground").generate("a heart", steps=1, progress=False).size
    wrote = refiners.load_model("playground-writer").generate("a red heart")
print(json.dumps({
    "dists": sorted({plugin.dist for plugin in plugins}),
    "preprocessed": preprocessed,
    "broken": [str(plugin) for plugin in refiners.broken()],
    "worn": worn,
    "made": made,
    "wrote": wrote,
}))
"""


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, "-I", "-S", "-c", script, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Builds the wheel of each plugin, and of the core under `core`."""
    folder = tmp_path_factory.mktemp("wheels")
    origins = {"core": ROOT, **{name: ROOT / "plugins" / name for name in PLUGINS}}
    for name, origin in origins.items():
        shutil.copytree(origin, folder / name, ignore=LEFT_OUT)
    run(BUILD, sysconfig.get_path("purelib"), *(folder / name for name in origins))
    return {name: next((folder / name / "dist").glob("*.whl")) for name in origins}


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with links to the installed third-party packages."""
    folder = tmp_path_factory.mktemp("others")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("refiners", "__editable__")):
            (folder / path.name).symlink_to(path)
    return folder


@pytest.mark.parametrize(
    "plugin",
    [pytest.param(name, marks=() if name in USUAL else pytest.mark.slow) for name in PLUGINS],
)
def test_a_package_works_without_our_other_packages(
    plugin: str, wheels: dict[str, Path], others: Path, tmp_path: Path
):
    for name in ("core", plugin):
        with zipfile.ZipFile(wheels[name]) as wheel:
            wheel.extractall(tmp_path)
    report: dict[str, Any] = json.loads(run(TRY, tmp_path, others))
    assert report["dists"] == sorted(["refiners-core", f"refiners-{plugin}"])
    assert report["broken"] == []
    if plugin == "playground":
        assert report["made"] == [64, 64]
        assert report["wrote"].startswith("Picture a red heart on a")
    elif plugin == "preprocessors":
        assert len(report["preprocessed"]) == 10
        assert set(map(tuple, report["preprocessed"].values())) == {(8, 6)}
    else:
        assert report["worn"]
        assert set(map(tuple, report["worn"].values())) == {(1, 0)}
