"""Types reach the user: the Python of every page passes pyright, and a mistake is red."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("README.md", "CONTRIBUTING.md", "plugins/*/README.md", "docs/**/*.md")
    for path in ROOT.glob(pattern)
    if path.parent.name != "tutorial"  # whose packages are not installed, and whose names change
)
BLOCK = re.compile(r"^( *)```python\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
USE = """\
from typing import assert_type

import refiners
from PIL import Image
from refiners_core import Adapter, Seat, Selection, select
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.unet import UNet
from torch import Tensor, nn

model = refiners.load_model("playground")
adapter = refiners.load_adapter("controlnet-canny", model)
assert_type(model, LatentDiffusion)
assert_type(adapter, Adapter)
assert_type(model.unet, UNet)
assert_type(model.generate("a"), Image.Image)
assert_type(model.generate(["a", "b"]), list[Image.Image])
assert_type(model.generate("a", count=2), list[Image.Image])
assert_type(model.generate("a", output="tensor"), Tensor)
assert_type(model.generate("a", output="latents", seed=[1, 2]), Tensor)
assert_type(model.slot("unet.cross_attention"), Selection)
for seat in select(model.unet).of(nn.Linear):
    assert_type(seat, Seat)
    assert_type(seat.layer, nn.Module)
model.generate(condition={adapter: 1})  # red
model.generate("a", num_inference_steps=3)  # red
model.generate("a", output="jpeg")  # red
refiners.load_model("playground", devise="cpu")  # red
refiners.load_adapter(3)  # red
model.slot(4)  # red
"""


def python_of(page: Path) -> str:
    """Returns the Python of a page as one module; lines keep their numbers."""
    lines = page.read_text().splitlines()
    kept = [""] * len(lines)
    for match in BLOCK.finditer(page.read_text()):
        start = page.read_text()[: match.start(2)].count("\n")
        for number, line in enumerate(match[2].splitlines(), start):
            kept[number] = line.removeprefix(match[1])
    return "\n".join(kept) + "\n"


@pytest.fixture(scope="module")
def reported(tmp_path_factory) -> dict[str, list[tuple[int, str]]]:
    """Returns the errors that pyright reports, by file: line and message."""
    folder = tmp_path_factory.mktemp("typed")
    names = {"use.py": USE}
    for number, page in enumerate(PAGES):
        names[f"page_{number}.py"] = python_of(page)
    for name, text in names.items():
        (folder / name).write_text(text)
    config = {
        "typeCheckingMode": "standard",
        "reportAttributeAccessIssue": "error",
        "extraPaths": [str(ROOT), str(ROOT / "registry"), *map(str, ROOT.glob("plugins/*/src"))],
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(
        [*command, "-p", str(folder)], capture_output=True, text=True, check=False, timeout=300
    )
    errors: dict[str, list[tuple[int, str]]] = {name: [] for name in names}
    for entry in json.loads(done.stdout)["generalDiagnostics"]:
        if entry["severity"] == "error":
            line = entry["range"]["start"]["line"] + 1
            errors[Path(entry["file"]).name].append((line, entry["message"]))
    return errors


@pytest.mark.parametrize("number", range(len(PAGES)), ids=lambda n: str(PAGES[n].relative_to(ROOT)))
def test_the_python_of_a_page_is_well_typed(number, reported):
    assert reported[f"page_{number}.py"] == []


def test_a_mistake_is_red_and_nothing_else_is(reported):
    red = [number for number, line in enumerate(USE.splitlines(), 1) if line.endswith("# red")]
    assert sorted({line for line, _ in reported["use.py"]}) == red, reported["use.py"]
