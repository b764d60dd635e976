"""Fuzzes untrusted files: each is read, or refused with an error of the registry.

`HYPOTHESIS_PROFILE=long python -m pytest tests/registry/manifest/test_fuzz.py` tries 10,000 files.
"""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refiners.choose.lock import Lock, LockedFile, LockedPlugin, read_lock, write_lock
from refiners.choose.policy import Guard
from refiners.errors import IntegrityError, LockError, ManifestError, PolicyError, RefinersError
from refiners.hub.tensor_header import parse_header, read_header
from refiners.manifest.reader import load_manifest
from refiners.manifest.schema import AdapterManifest, ModelManifest
from refiners.testing import safetensors_of

from ..conftest import EDGES_TOML, TOY_MODEL_TOML

EACH = 3_400 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 100
"""The number of files of each of the four kinds."""
MANIFEST = (
    EDGES_TOML.replace('summary = "Follow edges"', 'summary = "é"\naliases = ["a"]\nconflicts = []')
    + 'weights = "w"\n[adapter.edges.input]\na = { summary = "b", range = [0, 1] }\n'
    + '[adapter.edges.weights.w]\nsource = "hf:org/edges"\nfile = "a/b.safetensors"\n'
    + 'revision = "unknown"\nsha256 = "unknown"\nsize = 3\nshapes = { k = [1, "width", "*"] }\n'
)
POLICY = (
    'schema = 1\nadvisories = []\n[packages]\nallow = ["*"]\ndeny = []\n[files]\nmax-size = 1\n'
)
VALUES = ["0", "-1", '""', "[]", "{}", "[[1]]", "nan", "1979-05-27", "true", "'''", "9" * 40]


@st.composite
def mutated(draw: st.DrawFn, text: str) -> bytes:
    """Draws a text with lines removed, duplicated, cut, swapped, or with other values or bytes."""
    lines = text.splitlines()
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, len(lines) - 1))
        lines[at] = draw(
            st.sampled_from(["", lines[at][: len(lines[at]) // 2], *lines])
            | st.sampled_from(VALUES).map(lambda v, at=at: f"{lines[at].partition('=')[0]}= {v}")
            | st.text(max_size=40)
        )
    raw = "\n".join(lines).encode("utf-8", "surrogatepass")
    if draw(st.booleans()):
        return raw
    return draw(st.binary(max_size=60)) + raw[draw(st.integers(0, len(raw))) :]


@pytest.fixture(scope="module")
def lock_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("lock") / "refiners.lock"
    file = LockedFile(name="w", source="hf:org/edges", file="a", revision="a" * 40, sha256="b" * 64)
    plugin = LockedPlugin(
        id="refiners-edges:edges", kind="adapter", version="1.2", manifest="c" * 64, file=(file,)
    )
    write_lock(path, Lock(plugin=(plugin,)))
    return path.read_text()


def refusal(kind: type[RefinersError], action: Callable[[], object]) -> RefinersError | None:
    """Returns the error of the given kind that an action raises; other errors propagate."""
    try:
        action()
    except kind as error:
        return error
    return None


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@settings(max_examples=EACH, deadline=None)
@given(st.data())
def test_manifests(tmp_path: Path, data: st.DataObject) -> None:
    is_model = data.draw(st.booleans())
    text = data.draw(mutated(TOY_MODEL_TOML if is_model else MANIFEST))
    path = written(tmp_path, "manifest.toml", text)
    kind = ModelManifest if is_model else AdapterManifest
    error = refusal(ManifestError, lambda: load_manifest(path, kind))
    assert error is None or (error.faults and str(error))
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.toml"]


@settings(max_examples=EACH, deadline=None)
@given(st.data())
def test_locks(tmp_path: Path, lock_text: str, data: st.DataObject) -> None:
    path = written(tmp_path, "refiners.lock", data.draw(mutated(lock_text)))
    error = refusal(LockError, lambda: read_lock(path))
    if error is None:
        lock = read_lock(path)
        write_lock(path, lock)
        ids = {plugin.id for plugin in lock.plugin}
        assert {plugin.id for plugin in read_lock(path).plugin} == ids
    else:
        assert error.hint
    assert [file.name for file in tmp_path.iterdir()] == ["refiners.lock"]


@settings(max_examples=EACH, deadline=None)
@given(st.data())
def test_policies(tmp_path: Path, data: st.DataObject) -> None:
    path = written(tmp_path, "policy.toml", data.draw(mutated(POLICY)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFINERS_POLICY", str(path))
        error = refusal(PolicyError, Guard.from_environment)
    assert error is None or error.hint


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "a"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=EACH, deadline=None)
@given(st.data())
def test_headers(tmp_path: Path, data: st.DataObject) -> None:
    whole = safetensors_of({"weight": [1.0, 2.0], "bias": [3.0]})
    odd = json.dumps(data.draw(JSON)).encode()
    content = data.draw(
        st.binary(max_size=80)
        | st.integers(0, len(whole)).map(lambda at: whole[:at])
        | st.just(struct.pack("<Q", len(odd)) + odd)
        | st.integers(0, 2**64 - 1).map(lambda length: struct.pack("<Q", length) + odd)
        | st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)).map(
            lambda edit: whole[: edit[0]] + bytes([edit[1]]) + whole[edit[0] + 1 :]
        )
    )
    path = written(tmp_path, "model.safetensors", content)
    error = refusal(IntegrityError, lambda: read_header(path, dist="refiners-x"))
    if error is None:
        assert all(min(shape, default=0) >= 0 for shape in read_header(path).values())
    else:
        assert error.dist == "refiners-x"
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_deep_header_is_refused(tmp_path: Path) -> None:
    deep = b'{"a":' + b"[" * 200_000
    with pytest.raises(RefinersError):
        read_header(written(tmp_path, "a", struct.pack("<Q", len(deep)) + deep))
    with pytest.raises(ValueError, match="shape"):
        parse_header(b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 0]}}')
