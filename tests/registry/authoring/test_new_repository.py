"""A new repository passes its own tests, is clean, follows its template, and is in the wheel."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from refiners.authoring.scaffold import ANSWERS, KINDS, MODEL, TEMPLATE, create

from refiners_core import Condition

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.slow


def done(*command: object, cwd: Path, **variables: str) -> str:
    """Runs a command that must succeed, and returns what it prints."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables}
    result = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize("kind", [*KINDS, MODEL])
def test_the_tests_of_a_new_repository_pass_as_written(tmp_path: Path, kind: str):
    folder = tmp_path / "new"
    create(f"my-{kind}", folder, kind=kind)
    report = tmp_path / "conformance.json"
    options = ("-q", "-p", "no:cacheprovider", "--conformance", report)
    done(sys.executable, "-m", "pytest", *options, cwd=folder)
    verdicts = {
        check["check"]: check["verdict"] for check in json.loads(report.read_text())["checks"]
    }
    assert "fail" not in verdicts.values()
    wanted = ("manifest", "import-without-torch", "wheel", "examples", "factory", "reproducible")
    assert {check: verdicts[check] for check in wanted} == dict.fromkeys(wanted, "pass")


def test_a_law_that_a_new_adapter_breaks_is_found(tmp_path: Path):
    folder = tmp_path / "new"
    create("my-plain", folder, kind="plain")
    (code,) = folder.glob("src/*/adapter.py")
    code.write_text(
        code.read_text().replace("x if scale is None else ", "x + 1 if scale is None else ")
    )
    with pytest.raises(AssertionError, match="still changes the output"):
        done(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder)


def test_the_types_of_new_repositories_are_complete(tmp_path: Path):
    for kind in (*KINDS, MODEL):
        create(f"my-{kind}", tmp_path / kind, kind=kind)
        config = tmp_path / kind / "pyproject.toml"
        rooms = json.dumps([str(ROOT), str(ROOT / "registry")])
        config.write_text(f"{config.read_text()}extraPaths = {rooms}\n")
        done(BIN / "pyright", "--pythonpath", sys.executable, cwd=tmp_path / kind)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A git repository with the template of Refiners, as that of the project has it."""
    folder = tmp_path / "template"
    inside = folder / TEMPLATE.relative_to(ROOT)
    shutil.copytree(TEMPLATE, inside)
    shutil.copy(ROOT / "copier.yml", folder)
    commit(folder, "v1.0.0")
    return folder


def commit(folder: Path, tag: str = "") -> None:
    git = ("git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    done("git", "init", "-q", cwd=folder)
    done("git", "add", "-A", cwd=folder)
    done(*git, "commit", "-q", "-m", "a version", cwd=folder)
    if tag:
        done("git", "tag", tag, cwd=folder)


@pytest.mark.parametrize("tool", ["copier", "refiners"])
def test_an_update_merges_a_new_version_of_the_template(tmp_path: Path, template: Path, tool: str):
    new, author = tmp_path / "new", 'Ada {{ 7 * 7 }} "L"'
    if tool == "copier":
        answers = [f"--data={key}={value}" for key, value in (("name", "edge"), ("author", author))]
        done(BIN / "copier", "copy", "--defaults", *answers, template, new, cwd=tmp_path)
    else:
        create("edge", new, answers={"author": author}, template=str(template))
    assert "_commit: v1.0.0" in (new / ANSWERS).read_text()
    (code,) = new.glob("src/*/adapter.py")
    code.write_text(code.read_text().replace("rank: int = 4", "rank: int = 16"))
    commit(new)

    project = template / TEMPLATE.relative_to(ROOT) / "project"
    flow = project / ".github/workflows/tests.yml"
    flow.write_text(flow.read_text().replace('python: "3.13"', 'python: "3.14"'))
    (project / "SECURITY.md").write_text("Write to the author.\n")
    commit(template, "v1.1.0")

    done(BIN / "copier", "update", "--defaults", cwd=new)
    assert "_commit: v1.1.0" in (new / ANSWERS).read_text()
    assert 'python: "3.14"' in (new / ".github/workflows/tests.yml").read_text()
    assert (new / "SECURITY.md").is_file()
    assert "rank: int = 16" in code.read_text()
    assert author in (new / "LICENSE").read_text()
    assert not [*new.rglob("*.rej")]


def test_the_wheel_has_the_whole_template(tmp_path: Path):
    source = tmp_path / "source"
    skipped = shutil.ignore_patterns(".venv", ".git", "plugins", "docs", "tests", "benchmarks")
    shutil.copytree(ROOT, source, ignore=skipped)
    options = ("--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check")
    done(sys.executable, "-m", "pip", "wheel", *options, "-w", tmp_path, source, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {*archive.namelist()}
    files = {path for path in TEMPLATE.rglob("*") if path.is_file()}
    missing = {
        f"refiners/authoring/template/{path.relative_to(TEMPLATE)}" for path in files
    } - names
    assert not missing


def test_first_party_adapters_work_on_a_new_base_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from refiners_controlnet.adapter import ControlNet
    from refiners_ipadapter.adapter import IpAdapter
    from refiners_lora.adapter import Lora

    from refiners_core.models.clip import ClipImageConfig

    create("my-base", tmp_path / "new", kind=MODEL)
    monkeypatch.syspath_prepend(str(tmp_path / "new" / "src"))
    model: Any = import_module("refiners_my_base.model").build(None)
    encoder = ClipImageConfig(
        image_size=16, patch_size=8, width=8, inner_width=8, layers=1, heads=1, projection_width=8
    )
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    options = {"steps": 2, "seed": 7, "output": "latents", "progress": False}
    bare = model.generate("a heart", **options)
    adapters = {
        Lora(name="lora"): Condition(scale=1.0),
        ControlNet(name="control"): picture,
        IpAdapter(name="picture", encoder=encoder): picture,
    }
    for adapter in adapters:
        adapter.inject(model)
        with torch.no_grad():
            for weight in adapter.parameters():
                if not weight.any():
                    weight.fill_(0.1)
    for adapter, condition in adapters.items():
        others = dict.fromkeys(adapters)
        image = model.generate("a heart", conditions={**others, adapter: condition}, **options)
        assert not torch.equal(image, bare), adapter.key
    model.eject_all()
    assert torch.equal(model.generate("a heart", **options), bare)
