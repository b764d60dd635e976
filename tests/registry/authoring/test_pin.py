"""`refiners pin`: pins of the Hub in the manifest, every other byte as its author wrote it."""

import hashlib
import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from refiners.authoring import toml_edit
from refiners.authoring.pin import pinned_manifests
from refiners.authoring.toml_edit import Edit, edited
from refiners.cli import main
from refiners.errors import CacheError
from refiners.hub.client import Hub
from refiners.manifest.toml import TomlError
from refiners.testing import LoopbackHub, safetensors_of

TENSORS = safetensors_of({"down.weight": [1.0, 2.0], "up.weight": [3.0]})
MANIFEST = """\
# my adapter
schema = 1

[adapter.edge-guide]   # the guide
factory = 'refiners_edge_guide.adapter:EdgeGuide'
summary = "Follow edges"
core-api = ">=1.0,<2"

[[adapter.edge-guide.variant]]
base = "toy"
weights = { weights = "toy", words = "words" }

[adapter.edge-guide.weights.toy]
source = "hf:org/edges"     # ours
file = 'edges.safetensors'
license = "MIT"
shapes = { "down.weight" = ["width"], "up.weight" = [] } # checked

# the vocabulary
[adapter.edge-guide.weights.words]
license = "MIT"
sha256 = 'unknown' # later
source = "hf:org/edges"
file = "vocab.json"
format = "json"
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "refiners_edge_guide" / "adapter.toml"
    path.parent.mkdir()
    path.write_text(MANIFEST)
    return path


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_pins_are_filled_and_all_else_stays(manifest: Path, hub: LoopbackHub) -> None:
    repo = hub.publish("org/edges", {"edges.safetensors": TENSORS, "vocab.json": b'{"a": 1}'})
    result = run("pin", manifest)
    assert result.exit_code == 0, result.output
    pins = f'revision = "{repo.commit}"\nsha256 = "{sha(TENSORS)}"\nsize = {len(TENSORS)}\n'
    words = f'revision = "{repo.commit}"\nsize = 8\nformat = "json"\n'
    wanted = MANIFEST.replace("'edges.safetensors'\n", f"'edges.safetensors'\n{pins}")
    wanted = wanted.replace('"up.weight" = []', '"up.weight" = [1]')
    wanted = wanted.replace("'unknown'", f"'{sha(repo.files['vocab.json'])}'")
    wanted = wanted.replace(
        'file = "vocab.json"\nformat = "json"\n', f'file = "vocab.json"\n{words}'
    )
    # where sha256 precedes the file, the size still follows it
    assert sorted(manifest.read_text().splitlines()) == sorted(wanted.splitlines())
    assert manifest.read_text().startswith(wanted[: wanted.index("# the vocabulary")])
    assert run("pin", manifest, "--check").exit_code == 0
    assert "every pin is current" in run("pin", manifest).output


def test_a_check_writes_nothing_and_fails_for_missing_and_stale_pins(
    manifest: Path, hub: LoopbackHub
) -> None:
    files = {"edges.safetensors": TENSORS, "vocab.json": b"{}"}
    first = hub.publish("org/edges", files)
    before = manifest.read_bytes()
    assert run("pin", manifest, "--check").exit_code == 1
    assert manifest.read_bytes() == before
    run("pin", manifest)
    changed = safetensors_of({"down.weight": [1.0, 2.0], "up.weight": [4.0]})
    second = hub.publish("org/edges", files | {"edges.safetensors": changed})
    before = manifest.read_bytes()
    result = run("pin", manifest, "--check", "--json")
    assert result.exit_code == 1
    moved = {(row["key"]): (row["old"], row["new"]) for row in json.loads(result.stdout)["pins"]}
    assert moved["revision"] == (first.commit, second.commit)
    assert moved["sha256"] == (sha(TENSORS), sha(changed))
    assert manifest.read_bytes() == before
    shown = run("pin", manifest)
    assert first.commit in shown.output
    assert second.commit in shown.output
    assert run("pin", manifest, "--check").exit_code == 0


def test_a_pin_stays_while_its_commit_has_the_same_bytes(
    manifest: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"edges.safetensors": TENSORS, "vocab.json": b"{}"}
    first = hub.publish("org/edges", files)
    run("pin", manifest)
    pinned, old = manifest.read_bytes(), Hub.from_environment().contents("org/edges")
    hub.publish("org/edges", files | {"README.md": b"new"})
    ask = Hub.contents
    monkeypatch.setattr(
        Hub,
        "contents",
        lambda self, name, revision="unknown": (
            old if revision == first.commit else ask(self, name, revision)
        ),
    )
    assert run("pin", manifest).exit_code == 0
    assert manifest.read_bytes() == pinned
    assert run("pin", manifest, "--revision", "main").exit_code == 0
    assert first.commit not in manifest.read_text()


@pytest.mark.parametrize(
    ("files", "named", "hint"),
    [
        ({"a.bin": b"1"}, "a.bin", "rewrite_pickle("),
        ({"a.bin": b"1", "a.safetensors": TENSORS}, "a.bin", 'file = "a.safetensors"'),
        ({"f/a.safetensors": TENSORS, "f/b.safetensors": TENSORS}, "f", 'file = "f/a.safetensors"'),
        ({"b.safetensors": TENSORS}, "a.safetensors", "hf upload org/edges a.safetensors"),
        ({"b.safetensors": b""}, "f/a.safetensors", "org/edges f/a.safetensors f/a.safetensors"),
        ({"f/a.bin": b"1"}, "f/a.bin", "rewrite_pickle('\"'\"'f/a.bin'\"'\"', "),
        ({"f/a.bin": b"1"}, "f/a.bin", "hf upload org/edges f/a.safetensors f/a.safetensors"),
        ({"f/a.bin": b"1", "f/x.md": b""}, "f", 'write file = "f/a.safetensors"'),
        ({"f/a.bin": b"1", "f/b.bin": b"1", "f/A.md": b""}, "f", 'file = "f/a.bin"'),
        ({"README.md": b"1"}, "", "needs a safetensors file, and org/edges has none"),
        ({"f/README.md": b"1"}, "f", "hf upload org/edges model.safetensors f/model.safetensors"),
    ],
)
def test_what_cannot_be_pinned_is_refused_with_the_next_step(
    manifest: Path, hub: LoopbackHub, files: dict[str, bytes], named: str, hint: str
) -> None:
    hub.publish("org/edges", {"vocab.json": b"{}", **files})
    manifest.write_text(MANIFEST.replace("edges.safetensors", named))
    result = run("pin", manifest)
    assert result.exit_code == 2
    assert hint in result.output
    assert "revision" not in manifest.read_text()


def test_a_folder_with_one_safe_file_is_pinned_as_that_file(
    manifest: Path, hub: LoopbackHub
) -> None:
    hub.publish(
        "org/edges", {"unet/m.safetensors": TENSORS, "unet/m.bin": b"", "vocab.json": b"{}"}
    )
    manifest.write_text(MANIFEST.replace("edges.safetensors", "unet"))
    assert run("pin", manifest).exit_code == 0
    assert "file = 'unet/m.safetensors'" in manifest.read_text()


def test_a_variant_limits_the_files(manifest: Path, hub: LoopbackHub) -> None:
    hub.publish("org/edges", {"edges.safetensors": TENSORS, "vocab.json": b"{}"})
    other = '[[adapter.edge-guide.variant]]\nbase = "other"\nweights = "words"\n'
    text = MANIFEST.replace(
        "[adapter.edge-guide.weights.toy]", f"{other}\n[adapter.edge-guide.weights.toy]"
    )
    manifest.write_text(text)
    assert run("pin", manifest, "--variant", "other").exit_code == 0
    assert "size = 2" in manifest.read_text()
    assert manifest.read_text().count("revision") == 1
    result = run("pin", manifest, "--variant", "othr")
    assert result.exit_code == 2
    assert "--variant other" in result.output


def test_files_in_the_package_and_a_whole_plugin_are_pinned(
    manifest: Path, hub: LoopbackHub, tmp_path: Path
) -> None:
    (manifest.parent / "small.safetensors").write_bytes(TENSORS)
    source = "pkg:refiners_edge_guide/small.safetensors"
    text = MANIFEST.partition("# the vocabulary")[0].replace("hf:org/edges", source)
    manifest.write_text(
        text.replace("file = 'edges.safetensors'\n", "").replace(', words = "words"', "")
    )
    point = 'edge-guide = "refiners_edge_guide:adapter.toml"'
    (tmp_path / "pyproject.toml").write_text(
        f'[project]\nname = "x"\n[project.entry-points."refiners.adapters"]\n{point}\n'
    )
    assert run("pin", tmp_path).exit_code == 0
    assert f'sha256 = "{sha(TENSORS)}"\nsize = {len(TENSORS)}' in manifest.read_text()
    assert hub.requests == []
    assert run("pin", tmp_path / "pyproject.toml").exit_code == 2


def test_a_manifest_that_changed_meanwhile_is_not_overwritten(
    manifest: Path, hub: LoopbackHub
) -> None:
    hub.publish("org/edges", {"edges.safetensors": TENSORS, "vocab.json": b"{}"})
    (pinned,) = pinned_manifests(manifest, Hub.from_environment())
    manifest.write_text("changed")
    with pytest.raises(CacheError, match="was changed while"):
        pinned.write()
    assert manifest.read_text() == "changed"
    assert [path.name for path in manifest.parent.iterdir()] == ["adapter.toml"]


def test_a_pickle_in_a_package_is_named_from_the_current_folder(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (manifest.parent / "w.bin").write_bytes(b"1")
    text = MANIFEST.replace("hf:org/edges", "pkg:refiners_edge_guide/w.bin", 1)
    manifest.write_text(text.replace("file = 'edges.safetensors'\n", ""))
    for folder, shown in (
        (manifest.parent.parent, "refiners_edge_guide/w"),
        (manifest.parent, "w"),
    ):
        monkeypatch.chdir(folder)
        result = run("pin", manifest.relative_to(folder))
        assert f"'{shown}.bin'" in result.output.replace("'\"'\"'", "'")
        assert f"'{shown}.safetensors'" in result.output.replace("'\"'\"'", "'")


def test_a_read_only_manifest_stays(manifest: Path, hub: LoopbackHub) -> None:
    hub.publish("org/edges", {"edges.safetensors": TENSORS, "vocab.json": b"{}"})
    manifest.chmod(0o444)
    result = run("pin", manifest)
    assert result.exit_code != 0
    assert f"chmod u+w {manifest}" in result.output
    assert manifest.read_text() == MANIFEST


def test_a_name_with_an_apostrophe_is_escaped() -> None:
    for name in ("it's", "a\x01b", "a\nb"):
        assert tomllib.loads(edited("a = 'f' # c\n", [Edit(("a",), name)])) == {"a": name}


@pytest.mark.parametrize("new", [[1, 2], [1, 2, 3]])
def test_comments_in_an_array_stay(new: list[int]) -> None:
    text = "a = [ # width\n  'w#', # height\n  7,\n]\n"
    after = edited(text, [Edit(("a",), new)])
    assert tomllib.loads(after) == {"a": new}
    assert after.index("# width") < after.index("# height")


LAYOUTS = {
    "table": '[a]\n[a.w]\nfile = "f"   # c\n\n[b]\n',
    "inline": 'a.w = { x = 1, file = "f" } # c\nb = 2\n',
    "nested inline": 'a = { w = { file = "f", x = [1, 2] }, y = 3 }\n',
    "dotted in inline": 'a = { w.file = "f", w.x = 1 }\n',
    "dotted": 'a.w.file = "f" # c\n  a.w.x = 1\n',
    "indented": '[a]\n  [a.w]\n    file = \'f\'\n    x = """\nfile = "f"\n"""\n',
    "quoted": '["a"."w"]\n"file" = "f"\n',
    "crlf": '[a.w]\r\nfile = "f" # c\r\nx = 1\r\n',
    "no final newline": '[a.w]\nfile = "f"',
    "decoy": 'c = "file = \\"f\\""\n[a.w]\n# file = "f"\nfile = "f"\n[d.w]\nfile = "f"\n',
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_keeps_its_bytes(layout: str) -> None:
    text = LAYOUTS[layout]
    place = ("a", "w", "file")
    after = edited(
        text,
        [
            Edit(place, "g"),
            Edit((*place[:2], "sha"), "s", "file"),
            Edit((*place[:2], "n"), 7, "file"),
        ],
    )
    # removing what was written gives the original back
    reverted = after.replace('"g"', '"f"').replace("'g'", "'f'")
    for prefix in ("", "w.", "a.w.", "  a.w.", "    "):
        for new in ('sha = "s"', "n = 7"):
            reverted = reverted.replace(f", {prefix}{new}", "")
            reverted = reverted.replace(f"\r\n{prefix}{new}", "").replace(f"\n{prefix}{new}", "")
    assert reverted == text
    assert edited(text, []) is text


def test_an_uncertain_change_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toml_edit, "_literal", lambda *_: '"other"')
    with pytest.raises(TomlError, match="cannot be changed safely"):
        edited('a = "f"\n', [Edit(("a",), "g")])
