"""A folder of fake installed distributions, and a Hub on this machine."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from refiners.hub.client import Hub
from refiners.installed import inventory
from refiners.installed.distribution import distributions
from refiners.manifest.schema import WeightsFile
from refiners.testing import LoopbackHub, Repository, safetensors_of

TOY_MODEL = """
from refiners_core import Chain, Model, select
from torch import nn


def build(source, *, device=None, dtype=None):
    model = Model(
        base="toy",
        facts={"width": 2},
        slots={"toy.linear": lambda model: select(model).of(nn.Linear)},
        body=Chain(first=nn.Linear(2, 2, device=device, dtype=dtype)),
    )
    model.source = source
    return model
"""
TOY_MODEL_TOML = """
schema = 1
[model.toy]
factory = "refiners_toy.model:build"
summary = "A model of one layer"
core-api = ">=1.0,<2"
family = "toy"
facts = { width = 2 }
"""
EDGES = """
from refiners_core import Adapter, Sum
from torch import nn


class Edges(Adapter):
    def __init__(self, *, weights=None, name="", strength=1.0):
        super().__init__(weights=weights, name=name)
        self.strength = strength

    def build(self, model, source):
        self.built_from = source

    def edits(self, model):
        def beside(inner, seat):
            return Sum(inner, self.layer(seat, lambda: nn.Linear(2, 2)))

        return model.slot("toy.linear").wrap(beside, stage="branch")
"""
EDGES_TOML = """
schema = 1
[adapter.edges]
factory = "refiners_edges.adapter:Edges"
summary = "Follow edges"
core-api = ">=1.0,<2"
[[adapter.edges.variant]]
base = "toy"
facts = { width = 2 }
settings = { heads = 3 }
targets = [{ slot = "toy.linear", stage = "branch" }]
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-table", action="store_true", help="print the outcome of each fault")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the table of faults that `test_faults.py` records."""
    if not terminalreporter.config.getoption("--fault-table", default=False):
        return
    rows = [
        (*value, report.outcome)
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in report.user_properties
        if name == "fault"
    ]
    terminalreporter.section(f"{len(rows)} faults")
    for fault, result, outcome in rows:
        terminalreporter.write_line(f"{outcome:<7} {fault:<76} -> {result}")


@pytest.fixture(autouse=True)
def _without_the_rules_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("REFINERS_POLICY", "REFINERS_LOCK", "REFINERS_OFFLINE", "REFINERS_CATALOG"):
        monkeypatch.delenv(name, raising=False)


@dataclass
class Site:
    """A folder on the import path, into which a test installs distributions."""

    folder: Path

    def add(
        self,
        dist: str,
        *,
        package: str = "",
        files: dict[str, str | bytes] | None = None,
        entry_points: str | None = None,
        version: str = "1.2",
    ) -> Path:
        package = package or dist.replace("-", "_")
        for name, content in {"__init__.py": "", **(files or {})}.items():
            path = self.folder / package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        if entry_points is None:
            kind = "model" if "model.toml" in (files or {}) else "adapter"
            entry_points = f"[refiners.{kind}s]\nmain = {package}:{kind}.toml\n"
        info = self.folder / f"{dist.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(entry_points)
        return self.folder / package

    def add_toy(self) -> None:
        self.add("refiners-toy", files={"model.py": TOY_MODEL, "model.toml": TOY_MODEL_TOML})

    def add_edges(self, manifest: str = EDGES_TOML, code: str = EDGES) -> None:
        self.add("refiners-edges", files={"adapter.py": code, "adapter.toml": manifest})


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A folder of installed distributions that has only those which the test adds."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(inventory, "distributions", lambda: distributions([str(folder)]))
    before = set(sys.modules)
    yield Site(folder)
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    """A loopback Hub that this process uses, with an empty cache."""
    with LoopbackHub() as served, served.in_use(tmp_path / "hf"):
        yield served


FILE = "deep/model.safetensors"
DATA = safetensors_of({"weight": [float(i) for i in range(5000)]})


@pytest.fixture
def repo(hub: LoopbackHub) -> Repository:
    return hub.publish("org/weights", {FILE: DATA, "vocab.json": b'{"a": 1}'})


def pin(repo: Repository, file: str = FILE, **changes: object) -> WeightsFile:
    pinned = WeightsFile(
        source=f"hf:{repo.name}",
        file=file,
        revision=repo.commit,
        sha256=repo.sha256(file),
        size=len(repo.files[file]),
    )
    return msgspec.structs.replace(pinned, **changes)


def fetch(wanted: WeightsFile, *, offline: bool | None = None) -> Path:
    return Hub.from_environment(offline).fetch(wanted, dist="refiners-x")
