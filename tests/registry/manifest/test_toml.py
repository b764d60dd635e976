"""Untrusted TOML: read in time linear in its length, or refused with a clear message."""

import time
from pathlib import Path

import pytest
from refiners.choose.lock import read_lock
from refiners.choose.policy import Guard
from refiners.errors import LockError, ManifestError, PolicyError
from refiners.manifest.reader import load_manifest, parse
from refiners.manifest.schema import AdapterManifest
from refiners.manifest.toml import TomlError, load_toml, parse_toml
from refiners.manifest.version import is_newer, is_same, is_within, specifiers, version_of

from ..conftest import EDGES_TOML

HEAD, TAIL = EDGES_TOML.split("[[")
ENOUGH = 50_000
LONG = {
    "blanks": f"{' ' * ENOUGH}\nnope = 1\n",
    "blanks before =": f"nope{' ' * ENOUGH}= 1\n",
    "blanks after a header": f"[x-a]{' ' * ENOUGH}\nnope = 1\n[b]\n",
    "a dotted key": f"{'a.' * ENOUGH}a = 1\n",
    "a dotted key with blanks": f"{'a . ' * ENOUGH}a = 1\n",
    "a quoted key": '"a".' * ENOUGH + "a = 1\n",
    "a header": f"[{'a.' * ENOUGH}a]\n",
    "lists in lists": f"a = {'[' * ENOUGH}{']' * ENOUGH}\n",
    "tables in tables": f"a = {'{a=' * ENOUGH}1{'}' * ENOUGH}\n",
    "digits": f"a = {'9' * ENOUGH}\n",
    "hex digits": f"a = 0x{'f' * ENOUGH}\n",
    "unknown keys": "".join(f"key{i} = 1\n" for i in range(5000)),
    "a long key": f"{'k' * ENOUGH} = 1\n",
}


@pytest.mark.parametrize("what", LONG)
def test_reading_takes_linear_time(what: str) -> None:
    begin = time.process_time()
    manifest, faults = parse(f"{HEAD}{LONG[what]}[[{TAIL}", AdapterManifest)
    assert time.process_time() - begin < 2  # a quadratic reader takes minutes
    assert manifest is None
    assert faults


def test_many_wrong_names_are_reported_in_bounded_time() -> None:
    variants = "".join(f"[[adapter.edges.variant]]\nweights = 'w{i}'\n" for i in range(1500))
    files = "".join(
        f"[adapter.edges.weights.v{i}]\nsource = 'hf:a/b'\nfile = 'x'\n" for i in range(1500)
    )
    begin = time.process_time()
    _, faults = parse(f"{HEAD}{variants}{files}", AdapterManifest)
    assert time.process_time() - begin < 3
    assert len(faults) == 100


def test_the_error_of_thousands_of_faults_stays_short(tmp_path: Path) -> None:
    (tmp_path / "adapter.toml").write_text(f"{HEAD}{LONG['unknown keys']}[[{TAIL}")
    with pytest.raises(ManifestError, match="and 4900 more") as caught:
        load_manifest(tmp_path / "adapter.toml", AdapterManifest)
    assert len(caught.value.faults) == 5000
    assert len(caught.value.message.splitlines()) < 110


@pytest.mark.parametrize(
    "text",
    [
        'a = "One. Two. Three. Four. Five... and so on....................................."',
        "a = [" + ", ".join(["0.5"] * 500) + "]",
        "a.b.c.d = { e.f = 1 }",
        "a = 9223372036854775807",
    ],
)
def test_ordinary_toml_is_read(text: str) -> None:
    assert parse_toml(text)


def test_faults_have_their_lines_among_multi_line_strings_and_lists() -> None:
    text = (
        HEAD + 'x-note = """\n[adapter.edges]\nodd = "\\\\x\n"""\nx-list = [\n[1],\n]\nnope = 1\n[['
    )
    _, faults = parse(text + TAIL, AdapterManifest)
    assert [(fault.place[-1], fault.line) for fault in faults] == [("nope", 14)]


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
def test_a_byte_order_mark_is_skipped(
    tmp_path: Path, mark: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "any.toml"
    path.write_bytes(mark + EDGES_TOML.strip().encode())
    assert "edges" in load_manifest(path, AdapterManifest).adapter
    path.write_bytes(mark + b"schema = 1\n")
    assert read_lock(path).plugin == ()
    monkeypatch.setenv("REFINERS_POLICY", str(path))
    assert Guard.from_environment().policies[0][1].schema == 1


def test_the_error_names_another_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "any.toml"
    path.write_text("schema = 1\n", "utf-16")
    monkeypatch.setenv("REFINERS_POLICY", str(path))
    with pytest.raises(PolicyError, match="it is in UTF-16; save it as UTF-8"):
        Guard.from_environment()
    with pytest.raises(LockError, match="UTF-16"):
        read_lock(path)
    with pytest.raises(ManifestError, match="UTF-16"):
        load_manifest(path, AdapterManifest)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"#" * 1_000_001)
    with pytest.raises(TomlError, match="is larger than 1000000 bytes"):
        load_toml(tmp_path / "a")


def test_versions_that_cannot_be_compared_are_recognised() -> None:
    assert version_of("9" * 5000) is None
    assert version_of("abc") is None
    assert version_of("\u0661.0") is None
    assert is_same("1.0", "1.0.0")
    assert is_same("odd", "odd")
    assert not is_same("1.0", "odd")
    assert is_newer("1.10", "1.9")
    assert not is_newer("9" * 5000, "1")
    assert is_within("1.5", ">=1,<2")
    assert is_within("odd", ">=1") is None
    for wanted in ("about 1", ">=" + "9" * 5000, ">=\u0661"):
        with pytest.raises(ValueError, match=r"."):
            specifiers(wanted)


@pytest.mark.parametrize("wanted", [">=" + "9" * 5000, ">=1,<\u0662", ">=1" + ".0" * 20 + "x"])
def test_a_core_api_that_is_not_a_specifier_is_a_fault(wanted: str) -> None:
    manifest, faults = parse(EDGES_TOML.replace(">=1.0,<2", wanted), AdapterManifest)
    assert manifest is None
    assert "should be a version specifier" in str(faults[0])
