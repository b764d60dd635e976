"""Each command prints its results as text or JSON, and exits with the documented code."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from refiners.cli import main
from refiners.testing import LoopbackHub, safetensors_of

from ..conftest import EDGES, EDGES_TOML, TOY_MODEL, TOY_MODEL_TOML, Site

PAINTER = (
    TOY_MODEL
    + """
from PIL import Image


class Painter(Model):
    def generate(self, prompt, **arguments):
        Painter.arguments = arguments
        assert arguments["size"] in (None, (32, 8))
        scales = [condition.scale for condition in arguments["conditions"].values()]
        return [Image.new("RGB", (8, 8), (int(255 * sum(scales)), 0, 0))]


def paint(source, *, device=None, dtype=None):
    model = build(source, device=device, dtype=dtype)
    return Painter(base="toy", facts=model.facts, slots=model.slots, body=model.body)
"""
)
NEEDS_PICTURE = EDGES.replace("Adapter):\n", "Adapter):\n    takes_condition = True\n", 1)
DEMO = """
from collections import namedtuple

Row = namedtuple("Row", "name value note")


def run(api, out):
    api.load_model("toy")
    out.write_bytes(b"a sheet")
    return [Row("edge F1", 0.12345, "of [16] scenes"), Row("eject", "bit-equal", "")]
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def json_of(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    return json.loads(result.stdout)


@pytest.fixture
def toys(site: Site) -> Site:
    site.add_edges(code=NEEDS_PICTURE)
    manifest = (
        TOY_MODEL_TOML.replace("model:build", "model:paint") + 'demo = "refiners_toy.demo:run"\n'
    )
    files = {"model.py": PAINTER, "demo.py": DEMO, "model.toml": manifest}
    site.add("refiners-toy", files=files)
    return site


def test_help_shows_examples_of_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for command in main.list_commands(click.Context(main)):
        text = run(command, "--help").output
        assert "Examples:" in text
        assert f"  refiners {command}" in text


def test_the_version_is_printed() -> None:
    assert "1.0.0" in run("--version").output


def test_list_shows_what_is_installed_and_what_is_broken(toys: Site) -> None:
    toys.add("refiners-bad", files={"adapter.toml": "schema = 1"})
    result = run("list")
    assert result.exit_code == 0
    for text in ("edges", "toy", "refiners-edges 1.2", "Follow edges"):
        assert text in result.stdout
    assert "refiners-bad" in result.stderr
    facts = json_of("list")
    assert [adapter["id"] for adapter in facts["adapters"]] == ["refiners-edges:edges"]
    assert [model["family"] for model in facts["models"]] == ["toy"]
    assert [broken["dist"] for broken in facts["broken"]] == ["refiners-bad"]


def test_an_empty_list_names_a_package_to_install(site: Site) -> None:
    assert "pip install" in run("list").output


def test_info_shows_variants_and_weights(site: Site, hub: LoopbackHub) -> None:
    files = 'base = "toy"\nweights = { weights = "w", encoder = "e" }'
    site.add_edges(
        EDGES_TOML.replace('base = "toy"', files)
        + '[adapter.edges.weights.w]\nsource = "hf:org/edges"\n'
        + 'file = "model.safetensors"\nsize = 5000000\n'
        + '[adapter.edges.weights.e]\nsource = "pkg:refiners_edges/__init__.py"\n'
        + f'sha256 = "{"0" * 64}"\n'
    )
    result = run("info", "edges")
    assert result.exit_code == 0, result.output
    for text in ("refiners-edges:edges", "hf:org/edges@unknown/model.safetensors", "5.0 MB"):
        assert text in result.stdout
    facts = json_of("info", "edges")
    assert facts["variants"][0]["files"] == {"weights": "w", "encoder": "e"}
    assert [file["here"] for file in facts["weights"]] == [False, True]
    assert hub.requests == []


def test_info_of_a_model(toys: Site) -> None:
    assert json_of("info", "toy")["family"] == "toy"


def test_an_unknown_name_is_a_usage_error_without_traceback(toys: Site) -> None:
    result = run("info", "edgse")
    assert result.exit_code == 2
    assert "Did you mean 'edges'?" in result.stderr
    assert "Traceback" not in result.output
    assert json_of("info", "edgse")["error"]["code"] == "name-unknown"


def test_why_checks_every_variant(toys: Site) -> None:
    result = run("why", "edges", "--model", "toy")
    assert result.exit_code == 0, result.output
    assert "refiners-edges:edges 1.2" in result.stdout
    assert "base, facts and packages match" in result.stdout
    (verdict,) = json_of("why", "edges")["models"]["toy"]
    assert verdict["accepted"] is True


def test_why_prints_the_reason_and_a_hint(site: Site) -> None:
    site.add_toy()
    alone = EDGES_TOML.replace('stage = "branch"', 'stage = "branch", exclusive = true')
    site.add_edges(alone)
    assert run("why", "edges", "--model", "toy").exit_code == 0
    result = run("why", "edges", "--model", "toy", "--with", "edges")
    assert result.exit_code == 1
    assert "needs the slot toy.linear exclusively" in result.stdout
    assert "Leave --with edges out." in result.stdout
    assert run("why", "edgse").exit_code == 2


def test_tree_prints_the_layers_of_adapters(toys: Site) -> None:
    bare, worn = run("tree", "toy"), run("tree", "toy", "--with", "edges")
    assert bare.exit_code == worn.exit_code == 0, worn.output
    assert "Linear" in bare.stdout
    assert "<- edges" in worn.stdout
    assert "<- edges" not in bare.stdout
    assert "<- edges" in json_of("tree", "toy", "--with", "edges")["tree"]
    assert run("tree", "toy", "--part", "body", "--depth", "0").stdout.startswith("Chain")
    assert run("tree", "toy", "--part", "bodi").exit_code == 2


def test_tree_shows_an_adapter_that_reads_a_file_of_the_users(toys: Site, tmp_path: Path) -> None:
    style = EDGES_TOML.replace("adapter.edges", "adapter.style").replace("s_edges", "s_style")
    style = style.replace("refiners_style.adapter.style", "refiners_style.adapter")
    style += '[adapter.style.file]\nsummary = "a style"\n'
    toys.add("refiners-style", files={"adapter.py": EDGES, "adapter.toml": style})
    file = tmp_path / "my style.safetensors"
    file.write_bytes(safetensors_of({"weight": [1.0]}))
    assert "<- style" in run("tree", "toy", "--with", f"style={file}").stdout
    refused = run("tree", "toy", "--with", "style")
    assert (refused.exit_code, "--with style=style.safetensors" in refused.stderr) == (2, True)
    refused = run("tree", "toy", "--with", "style=hf:org/style/a.safetensors")
    assert "Run refiners fetch style=hf:org/style/a.safetensors first." in refused.stderr


def test_generate_writes_a_picture(toys: Site, tmp_path: Path) -> None:
    picture, out = tmp_path / "edges.png", tmp_path / "out.png"
    Image.new("L", (4, 4)).save(picture)
    result = run(
        "generate", "x", "--model", "toy", "--adapter", f"edges={picture}:0.5", "--out", str(out)
    )
    assert result.exit_code == 0, result.output
    assert Image.open(out).getpixel((0, 0)) == (127, 0, 0)
    assert [path.name for path in sorted(tmp_path.glob("*.png"))] == ["edges.png", "out.png"]
    facts = json_of(
        *("generate", "x", "--model", "toy", "--adapter", "edges:0"),
        *("--out", str(out), "--size", "32x8"),
    )
    assert facts["adapters"] == [{"name": "edges", "picture": None, "scale": 0.0}]


def test_generate_takes_the_inputs_of_an_adapter_by_name(toys: Site, tmp_path: Path) -> None:
    out, odd = tmp_path / "out.png", tmp_path / "a=b,c=d.png"
    names = {"picture": tmp_path / "in.png", "mask": tmp_path / "where.png"}
    for path in (*names.values(), odd):
        Image.new("L", (4, 4)).save(path)
    several = ",".join(f"{name}={path}" for name, path in names.items())
    facts = json_of("generate", "x", "--model", "toy", "--out", str(out),
                 "--adapter", f"edges={several}:0.5", "--adapter", f"edges={odd}")  # fmt: skip
    assert [adapter["picture"] for adapter in facts["adapters"]] == [
        {name: str(path) for name, path in names.items()},
        str(odd),
    ]
    names["mask"].unlink()
    result = run("generate", "x", "--model", "toy", "--adapter", f"edges={several}")
    words = " ".join(result.stderr.split())
    assert (result.exit_code, f"the picture {names['mask']} does not exist" in words) == (2, True)


def test_generate_passes_only_the_given_options(toys: Site, tmp_path: Path) -> None:
    picture, out = tmp_path / "in.png", tmp_path / "out.png"
    Image.new("L", (4, 4)).save(picture)
    model = ("--model", "toy", "--out", str(out))
    options = ("--image", str(picture), "--mask", str(picture), "--sampler", "euler", "--offload")
    assert run("generate", "x", *model).exit_code == 0
    plain = import_module("refiners_toy.model").Painter.arguments
    assert run("generate", "x", *model, *options, "--strength", "0.5").exit_code == 0
    passed = import_module("refiners_toy.model").Painter.arguments
    assert {*passed} - {*plain} == {"image", "mask", "sampler", "offload", "strength"}
    assert (passed["sampler"], passed["strength"], passed["offload"]) == ("euler", 0.5, True)
    assert passed["image"].size == (4, 4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--adapter", "edges=/nowhere.png"), "the picture /nowhere.png does not exist"),
        (("--adapter", "=a.png"), "does not name an adapter"),
        (("--adapter", "edges={folder}/text.png"), "text.png is not a picture"),
        (("--adapter", "edges={folder}/text.png:x"), "text.png:x does not exist"),
        (("--out", "{folder}/nowhere/out.png"), "does not exist. Run mkdir -p"),
        (("--out", "{folder}/out.txt"), "does not end in the suffix of a picture format"),
        (("--out", "{folder}"), "is a directory"),
        (("--steps", "0"), "not in the range"),
        (("--guidance", "-1"), "not in the range"),
        (("--size", "64x"), "write 64x64"),
        (("--image", "{folder}/nowhere.png"), "does not exist"),
        (("--mask", "{folder}/text.png"), "text.png is not a picture"),
        (("--strength", "2"), "not in the range"),
        (("--device", "nowhere"), "'nowhere' is not a device of this machine"),
        (("--model", "toi"), "Did you mean 'toy'"),
        (("--adapter", "edgse={folder}/good.png"), "Did you mean 'edges'"),
    ],
)
def test_generate_refuses_bad_input_before_it_writes(
    toys: Site, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    (tmp_path / "text.png").write_text("text")
    Image.new("L", (4, 4)).save(tmp_path / "good.png")
    given = [argument.format(folder=tmp_path) for argument in arguments]
    model = () if "--model" in given else ("--model", "toy")
    out = () if "--out" in given else ("--out", str(tmp_path / "out.png"))
    result = run("generate", "x", *model, *out, *given)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())
    assert not (tmp_path / "out.png").exists()


def test_demo_prints_its_measurements(toys: Site, tmp_path: Path) -> None:
    out = tmp_path / "demo.png"
    result = run("demo", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert "0.123" in result.stdout
    assert "of [16] scenes" in result.stdout
    assert out.read_bytes() == b"a sheet"
    assert json_of("demo", "--out", str(out))["rows"][1]["value"] == "bit-equal"


def test_demo_without_a_model_names_a_package_to_install(site: Site, tmp_path: Path) -> None:
    out = str(tmp_path / "demo.png")
    assert run("demo", "--out", out).exit_code == 2
    assert "refiners-playground" in run("demo", "--out", out).stderr
    assert run("demo", "--out", str(tmp_path / "demo.txt")).exit_code == 2


def test_demo_of_a_model_without_a_demo(toys: Site, tmp_path: Path) -> None:
    result = run("demo", "--model", "sd15", "--out", str(tmp_path / "demo.png"))
    assert result.exit_code == 2
    assert "Models with a demo: toy." in result.stderr


@pytest.mark.parametrize(
    ("fault", "code"), [("UNAVAILABLE", 3), ("GATED", 3), ("WRONG_HASH", 4), ("NO_COMMIT", 4)]
)
def test_network_and_integrity_errors_have_their_exit_codes(
    site: Site, hub: LoopbackHub, tmp_path: Path, fault: str, code: int
) -> None:
    from refiners.testing import Fault

    repo = hub.publish("org/toy", {"a.safetensors": b"0"})
    hub.fail("a.safetensors", Fault[fault])
    pins = f'source = "hf:org/toy"\nfile = "a.safetensors"\nrevision = "{repo.commit}"\n'
    manifest = f'{TOY_MODEL_TOML}[model.toy.weights.main]\n{pins}sha256 = "{"0" * 64}"\n'
    site.add("refiners-toy", files={"model.py": TOY_MODEL, "model.toml": manifest})
    result = run("generate", "x", "--model", "toy", "--out", str(tmp_path / "out.png"))
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
