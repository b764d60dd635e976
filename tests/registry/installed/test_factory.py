"""A package or a published file is blamed for its own faults, and only for those."""

import errno
import io
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import refiners
import torch
from click.testing import CliRunner
from refiners.choose import policy
from refiners.cli import main
from refiners.doctor import examine
from refiners.errors import (
    CacheError,
    IntegrityError,
    MachineError,
    PluginError,
    PolicyError,
    RefinersError,
)
from refiners.host.machine import machine_fault
from refiners.hub.client import Hub
from refiners.hub.receipts import sha256_of
from refiners.hub.shapes import header_of
from refiners.installed import hook_modules
from refiners.installed.factory import import_reference
from refiners.installed.inventory import Inventory, scan
from refiners.manifest.toml import load_toml
from refiners.sources.fetch import fetch_file
from refiners.sync import examine_files
from refiners.testing import LoopbackHub, Repository

from refiners_core.hookspecs import hookimpl, manager

from ..conftest import DATA, EDGES_TOML, FILE, Site, fetch, pin

# --- published files --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [b"[1]", b'"x"', b"7", b'{"a":' + b"[" * 100_000, b'{"a": 1}', b"\xff"]
)
def test_a_garbled_header_is_the_fault_of_the_file(hub: LoopbackHub, text: bytes) -> None:
    repo = hub.publish("org/w", {"m.safetensors": struct.pack("<Q", len(text)) + text})
    with pytest.raises(IntegrityError, match="not a readable safetensors file"):
        header_of(pin(repo, "m.safetensors"), Hub.from_environment())


def test_the_refusal_of_a_pickle_does_not_advise_to_trust_it(hub: LoopbackHub) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, ("true",)

    file = io.BytesIO()
    torch.save({"w": torch.ones(1), "x": Bomb()}, file)
    repo = hub.publish("org/p", {"m.bin": file.getvalue()})
    with pytest.raises(RefinersError, match=r"would call \w+\.system") as caught:
        fetch_file(pin(repo, "m.bin", format="pickle"), Hub.from_environment())
    assert caught.value.code == "pickle"
    assert not any(word in str(caught.value) for word in ("weights_only", "\x1b"))


# --- packages ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("raise OSError(28, 'No space left on device')", CacheError),
        ("raise PermissionError(13, 'Permission denied', '/data')", CacheError),
        ("raise AssertionError('Torch not compiled with CUDA enabled')", MachineError),
        ("raise ImportError('libcudart.so.12: cannot open shared object file')", MachineError),
        ("raise RuntimeError('CUDA out of memory. Tried to allocate')", RuntimeError),
        ("raise MemoryError", MemoryError),
        ("raise FileNotFoundError(2, 'no such file', 'own.json')", PluginError),
        ("raise RuntimeError('a bug')", PluginError),
    ],
)
def test_a_package_is_blamed_only_for_its_own_faults(
    site: Site, text: str, kind: type[BaseException]
) -> None:
    site.add("refiners-odd", files={"code.py": text})
    with pytest.raises(kind) as caught:
        import_reference("refiners_odd.code:make", "refiners-odd")
    assert type(caught.value) is kind
    assert getattr(caught.value, "dist", None) == ("refiners-odd" if kind is PluginError else None)


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps", "nowhere", "xpu"])
def test_a_missing_device_is_not_the_fault_of_a_package(site: Site, device: str) -> None:
    site.add_toy()
    with pytest.raises(refiners.OptionError, match="is not a device of this machine") as caught:
        refiners.load_model("toy", device=device)
    assert len(caught.value.message) < 250


@pytest.fixture
def packaged(site: Site) -> Inventory:
    """An adapter whose weights are in its package."""
    site.add_edges(
        f'{EDGES_TOML}weights = "w"\n[adapter.edges.weights.w]\n'
        f'source = "pkg:refiners_edges/w.safetensors"\nsha256 = "{"0" * 64}"\n'
    )
    return scan()


def forbidden(*_: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied", "/site-packages/refiners_edges")


def test_missing_permissions_are_not_the_fault_of_the_package(
    packaged: Inventory, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    (adapter,) = packaged.adapters
    client = Hub.from_environment(offline=True)
    for place in ("refiners.sources.fetch.package_file", "refiners.sync.package_file"):
        monkeypatch.setattr(place, forbidden)
    with pytest.raises(CacheError, match="/site-packages/refiners_edges cannot be") as caught:
        fetch_file(adapter.spec.weights["w"], client, dist=adapter.dist)
    assert caught.value.dist is None
    for deep in (False, True):
        (state,) = examine_files([adapter], client, deep=deep, must_be_here=False)
        assert state.state == "unreadable"
    monkeypatch.setattr("refiners.doctor.package_file", forbidden)
    problems = [problem for problem in examine(is_probing=False) if problem.kind == "permissions"]
    assert [(problem.dist, problem.command.split()[0]) for problem in problems] == [("", "sudo")]


def test_an_unreadable_policy_still_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(type(Path())):
        def stat(self, **_: Any) -> Any:
            forbidden()

    def load(path: Path) -> Any:
        return forbidden() if path.name == "policy.toml" else load_toml(path)

    monkeypatch.setattr(policy, "Path", Closed)
    monkeypatch.setattr("refiners.choose.policy_rules.load_toml", load)
    with pytest.raises(PolicyError, match=r"policy\.toml cannot be read") as caught:
        policy.Guard.from_environment()
    assert "XDG_CONFIG_HOME" in caught.value.hint


def test_a_path_that_is_not_utf_8_works(hub: LoopbackHub, repo: Repository, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    with hub.in_use(odd):
        path = fetch(pin(repo))
        assert path.is_relative_to(odd)
        before = len(hub.requests)
        assert fetch(pin(repo)) == path  # from the receipt
        assert Hub.from_environment().receipts.find(repo.sha256(FILE)) == path
    assert len(hub.requests) == before


# --- hooks ------------------------------------------------------------------------------------


def test_the_shell_fetches_through_hook_modules(
    site: Site, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w.safetensors").write_bytes(DATA)

    class Bucket:
        @hookimpl
        def fetch_weights(self, event: Any) -> Path:
            return tmp_path / "w.safetensors"

    bucket = Bucket()
    monkeypatch.setattr(
        "refiners.installed.hook_modules.load_installed", lambda: manager().register(bucket) and []
    )
    hook_modules.load_hooks.cache_clear()
    digest = sha256_of(tmp_path / "w.safetensors")
    site.add_edges(
        f'{EDGES_TOML}weights = "w"\n[adapter.edges.weights.w]\n'
        f'source = "s3:bucket/w.safetensors"\nsha256 = "{digest}"\n'
    )
    try:
        assert "not fetched" in CliRunner().invoke(main, ["verify"]).stdout
        fetched = CliRunner().invoke(main, ["fetch", "edges"])
        assert (fetched.exit_code, "ok" in fetched.stdout) == (0, True), fetched.output
        assert CliRunner().invoke(main, ["verify", "--deep"]).exit_code == 0
    finally:
        manager().unregister(bucket)
        hook_modules.load_hooks.cache_clear()


def test_errors_that_are_not_of_this_machine_are_left_alone() -> None:
    for error in (RuntimeError("odd"), ValueError("odd"), ConnectionResetError(), KeyError("x")):
        assert machine_fault(error, "trying") is None
