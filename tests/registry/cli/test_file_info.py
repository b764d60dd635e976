"""`refiners info FILE` and `refiners search hf:WORDS`: files and repositories, without torch."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from refiners.cli import main
from refiners.testing import Fault, LoopbackHub

from ..conftest import EDGES, EDGES_TOML, Site

FILE = """
[adapter.edges.file]
summary = "edges, as anybody writes them"
what = "an edge file"
facts.rank = { "*.down" = 0 }
values.alpha = [
    "*.alpha",
    "metadata:ss_network_alpha",
    "metadata:lora_adapter_metadata:lora_alpha",
    "config:lora_alpha",
]

[[adapter.edges.file.layout]]
name = "plain"
keys = ["*.down"]

[[adapter.edges.variant]]
"""
MANIFEST = EDGES_TOML.replace("[[adapter.edges.variant]]\n", FILE, 1)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def facts_of(*arguments: object) -> dict[str, Any]:
    done = run("info", *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def file_of(
    metadata: Mapping[str, str] | None = None, alphas: Sequence[tuple[str, bytes]] = ()
) -> bytes:
    """Returns a file with two ranks, and alphas of given dtypes and bytes."""
    header: dict[str, Any] = {
        "a.down": {"dtype": "F16", "shape": [4, 320], "data_offsets": [0, 0]},
        "b.down": {"dtype": "F16", "shape": [8, 320], "data_offsets": [0, 0]},
    }
    data = b""
    for number, (dtype, value) in enumerate(alphas):
        place = [len(data), len(data) + len(value)]
        header[f"{number}.alpha"] = {"dtype": dtype, "shape": [], "data_offsets": place}
        data += value
    if metadata:
        header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.fixture(autouse=True)
def _installed(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add_toy()
    site.add_edges(MANIFEST)
    monkeypatch.chdir(tmp_path)


def test_reader_layout_and_ranks_are_shown():
    Path("a.safetensors").write_bytes(file_of())
    facts = facts_of("a.safetensors")
    assert facts["kind"] == "an edge file"
    assert (facts["layout"], facts["reader"]) == ("plain", "refiners-edges:edges")
    assert facts["facts"] == {"rank": [4, 8]}
    assert (facts["tensors"], facts["parameters"], facts["dtypes"]) == (2, 3840, ["F16"])
    assert facts["next"] == "--adapter a.safetensors"
    assert ["rank", "4,", "8"] in map(str.split, run("info", "a.safetensors").stdout.splitlines())


HALF = struct.pack("<e", 2.0)
BRAIN = struct.pack("<f", 3.0)[2:]
ALPHAS: Mapping[str, tuple[bytes, list[float]]] = {
    "tensors": (file_of(None, [("F16", HALF), ("BF16", BRAIN), ("F32", struct.pack("<f", 2.5))]),
                [2, 2.5, 3]),
    "kohya's metadata": (file_of({"ss_network_alpha": "16"}), [16]),
    "PEFT's metadata": (
        file_of({"lora_adapter_metadata": '{"unet.lora_alpha": 2, "text_encoder.lora_alpha": 4}'}),
        [2, 4]),
    "a number that is not finite": (file_of(None, [("F16", struct.pack("<e", float("nan")))]), []),
    "a tensor that claims to be large": (file_of(None, [("F16", bytes(100))]), []),
    "damaged metadata": (file_of({"lora_adapter_metadata": "{" * 9}), []),
}  # fmt: skip


@pytest.mark.parametrize("origin", ALPHAS)
def test_alphas_come_from_tensors_metadata_or_configurations(origin: str):
    data, alphas = ALPHAS[origin]
    Path("a.safetensors").write_bytes(data)
    assert facts_of("a.safetensors")["facts"].get("alpha", []) == alphas


def test_a_configuration_beside_the_file_is_read():
    Path("a.safetensors").write_bytes(file_of())
    Path("adapter_config.json").write_text('{"lora_alpha": 12, "peft_type": "LORA"}')
    facts = facts_of("a.safetensors")
    assert facts["facts"]["alpha"] == [12]
    assert facts["notes"]["trainer"] == "LORA"


TAGS = {"10_cat": {"sks": 20, "cat": 19, "outdoors": 3}}
TRIGGERS: Mapping[str, tuple[Mapping[str, str], list[str]]] = {
    "ModelSpec": ({"modelspec.trigger_phrase": "sks, a cat"}, ["sks", "a cat"]),
    "captions": ({"ss_tag_frequency": json.dumps(TAGS)}, ["sks", "cat"]),
    "a phrase before captions": (
        {"modelspec.trigger_phrase": "mine", "ss_tag_frequency": json.dumps(TAGS)}, ["mine"]),
    "damaged captions": ({"ss_tag_frequency": '{"a": [1, {"b": "c"}]}'}, []),
    "captions of another form": ({"ss_tag_frequency": '{"a": {"b": "c"}}'}, []),
}  # fmt: skip


@pytest.mark.parametrize("origin", TRIGGERS)
def test_trigger_words_come_from_metadata(origin: str):
    metadata, words = TRIGGERS[origin]
    Path("a.safetensors").write_bytes(file_of(metadata))
    assert facts_of("a.safetensors").get("trigger_words", []) == words


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"activation text": "sks", "preferred weight": 0.7, "description": "d"}'),
        (
            "a.civitai.info",
            '{"trainedWords": ["sks"], "preferred weight": "0.7", "description": "d"}',
        ),
    ],
)
def test_notes_of_user_interfaces_beside_the_file_are_read(name: str, text: str):
    Path("a.safetensors").write_bytes(file_of())
    Path(name).write_text(text)
    facts = facts_of("a.safetensors")
    assert (facts["trigger_words"], facts["strength"]) == (["sks"], 0.7)
    assert facts["notes"]["description"] == "d"


def test_notes_in_the_header_are_shown():
    metadata = {"modelspec.title": "Ink", "modelspec.author": "me", "ss_clip_skip": "2",
                "modelspec.usage_hint": "strength 0.6", "ss_sd_model_name": "None"}  # fmt: skip
    Path("a.safetensors").write_bytes(file_of(metadata))
    notes = facts_of("a.safetensors")["notes"]
    assert notes == {"title": "Ink", "author": "me", "clip skip": "2", "usage": "strength 0.6"}


def test_hostile_notes_do_not_reach_the_terminal():
    Path("a.safetensors").write_bytes(file_of({"modelspec.title": "\x1b]0;x\x07Ink"}))
    assert "\x1b" not in run("info", "a.safetensors").stdout


def test_a_file_on_the_hub_is_shown_by_its_header_and_card(hub: LoopbackHub):
    card = b"---\ninstance_prompt: sks cat\nbase_model: org/base\n---\nhello"
    data = file_of({"ss_network_alpha": "16"}) + bytes(1_000_000)
    hub.publish("org/edges", {"a.safetensors": data, "README.md": card}, license="MIT")
    facts = facts_of("hf:org/edges/a.safetensors")
    assert facts["trigger_words"] == ["sks cat"]
    assert (facts["license"], facts["size"]) == ("MIT", len(data))
    assert facts["notes"]["architecture"] == "org/base"
    assert facts["facts"] == {"rank": [4, 8], "alpha": [16]}
    gets = [r for r in hub.requests if r.path.endswith("a.safetensors")]
    assert [r.headers.get("Range") for r in gets] == ["bytes=0-100000"]


def test_every_file_of_a_folder_is_listed(hub: LoopbackHub):
    files = {"a.safetensors": file_of(), "cut.safetensors": b"x", "old.bin": b"x"}
    hub.publish("org/edges", files)
    for name, data in {**files, "optimizer.bin": b"x", "notes.txt": b"x"}.items():
        Path("mine").mkdir(exist_ok=True)
        Path("mine", name).write_bytes(data)
    for what in ("./mine", "hf:org/edges"):
        listed = facts_of(what)["files"]
        assert [Path(facts["file"]).name for facts in listed] == sorted(files)
        assert [facts.get("kind") for facts in listed] == ["an edge file", None, "a pickle"]
        assert "not a readable safetensors file" in listed[1]["error"]
        assert run("info", what).exit_code == 0


def test_a_file_of_an_unknown_kind_is_shown_by_its_tensors():
    header = json.dumps({"x": {"dtype": "F16", "shape": [1], "data_offsets": [0, 0]}}).encode()
    Path("a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert facts_of("a.safetensors")["holds"] == ["x"]


def test_two_readers_are_both_shown(site: Site):
    site.add("refiners-other", files={
        "adapter.py": EDGES, "adapter.toml": MANIFEST.replace("edges", "lines"),
    })  # fmt: skip
    Path("a.safetensors").write_bytes(file_of())
    facts = facts_of("a.safetensors")
    assert facts["reader"] == ["refiners-edges:edges", "refiners-other:lines"]
    assert facts["next"] == "--adapter refiners-edges:edges=a.safetensors"


@pytest.mark.parametrize("what", ["nope.safetensors", "./nope", "hf:org/nope"])
def test_a_missing_file_is_an_error(hub: LoopbackHub, what: str):
    done = run("info", what, "--json")
    assert done.exit_code in (2, 3)
    assert json.loads(done.stdout)["error"]["hint"]


def test_torch_is_not_imported(tmp_path: Path):
    (tmp_path / "a.safetensors").write_bytes(file_of())
    code = (
        "import sys\nfrom refiners.cli import main\n"
        "for what in ('info', 'why'): main([what, 'a.safetensors'], standalone_mode=False)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["False"], done.stderr


# --- the search ------------------------------------------------------------------------------

BASE = "stable-diffusion-v1-5/stable-diffusion-v1-5"


@pytest.fixture
def sd15(site: Site) -> None:
    """A base model whose cards are known by two names."""
    site.add("refiners-bases", package="bases", files={"model.toml": """
schema = 1
[model.small]
factory = "bases.model:build"
summary = "A base"
core-api = ">=1.0,<2"
family = "small"
named-as = { base_model = ["old/small", "*/small"] }
[model.small.weights.unet]
source = "hf:new/small"
file = "unet.safetensors"
sha256 = "%s"
""" % ("0" * 64)})  # fmt: skip


@pytest.mark.usefixtures("sd15")
def test_adapters_on_the_hub_are_found_by_the_base_that_their_cards_name(hub: LoopbackHub):
    for name, base in (
        ("a/ink-new", "new/small"),
        ("b/ink-old", "old/small"),
        ("c/ink", "x/large"),
    ):
        tags = [f"base_model:{base}", f"base_model:adapter:{base}"]
        hub.publish(name, {"a.safetensors": b"x"}, license="MIT", tags=tags)
    hub.publish("d/pencil", {}, tags=["base_model:adapter:new/small"])
    done = run("search", "hf:ink", "--base", "small", "--json")
    matches = json.loads(done.stdout)["found"]
    assert [match["address"] for match in matches] == ["hf:a/ink-new", "hf:b/ink-old"]
    assert matches[0]["base_models"] == ["new/small"]
    assert matches[0]["license"] == "MIT"
    everything = json.loads(run("search", "hf:ink", "--json").stdout)["found"]
    assert len(everything) == 3
    assert "hf:a/ink-new" in run("search", "hf:", "--base", "small").stdout
    assert not [r for r in hub.requests if "resolve" in r.path]


@pytest.mark.usefixtures("sd15")
@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("hf:nothing",), "Nothing on the Hub matches", 1),
        (("hf:ink", "--base", "smal"), "Did you mean 'small'", 2),
        (("hf:ink", "--base", "toy"), "no repository on the Hub is known", 2),
    ],
)
def test_a_search_without_results_says_why(
    hub: LoopbackHub, arguments: Sequence[str], words: str, code: int
):
    done = run("search", *arguments)
    assert words in done.output
    assert done.exit_code == code


def test_a_hub_that_does_not_answer_a_search_is_named(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
):
    hub.fail("search", Fault.UNAVAILABLE)
    done = run("search", "hf:ink", "--json")
    assert (done.exit_code, json.loads(done.stdout)["error"]["code"]) == (3, "network")
    monkeypatch.setenv("REFINERS_OFFLINE", "1")
    assert json.loads(run("search", "hf:ink", "--json").stdout)["error"]["code"] == "offline"


def test_the_list_of_published_adapters_may_be_narrowed_to_a_base():
    assert "edges" in run("search", "refiners-edges", "--base", "toy").stdout
    assert run("search", "refiners-edges", "--base", "sd15").exit_code == 1


def test_a_file_without_tensors_and_a_broken_link_are_no_faults_of_ours():
    Path("empty.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    assert "tensors  0, 0.0 M values" in run("info", "empty.safetensors").output
    os.symlink("nowhere", "link.safetensors")
    shown = run("info", ".")
    assert (shown.exit_code, "link" in shown.output) == (0, False), shown.output


def test_a_hint_for_the_network_names_each_variable_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REFINERS_OFFLINE", "1")
    assert run("info", "hf:org/nothing").output.count("REFINERS_OFFLINE") == 1
