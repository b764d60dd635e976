"""Adapters on the command line are parsed, and checked before anything is loaded."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from refiners.cli import main
from refiners.cli.adapter_option import AdapterOption, parse_adapter_option
from refiners.testing import LoopbackHub

from ..conftest import EDGES, EDGES_TOML, TOY_MODEL_TOML, Site
from .test_commands import NEEDS_PICTURE, PAINTER

OPTED = EDGES.replace("strength=1.0", "strength=1.0, rank=4, mode=None").replace(
    "self.strength = strength", "self.strength, self.rank, self.mode = strength, rank, mode"
)


def run(*arguments: str, charset: str = "utf-8", **environment: str) -> Result:
    return CliRunner(charset=charset).invoke(main, arguments, env=environment)


@pytest.fixture
def toys(site: Site) -> Site:
    manifest = TOY_MODEL_TOML.replace("model:build", "model:paint")
    site.add("refiners-toy", files={"model.py": PAINTER, "model.toml": manifest})
    return site


@pytest.fixture
def pictures(toys: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with pictures, and adapters of several kinds."""
    toys.add_edges(code=OPTED)
    inputs = "".join(
        f'[adapter.paint.input.{name}]\nsummary = "a {name}"\n' for name in ("picture", "mask")
    )
    paint = EDGES_TOML.replace("adapter.edges", "adapter.paint").replace("s_edges", "s_paint")
    paint = paint.replace("refiners_paint.adapter.paint", "refiners_paint.adapter")
    toys.add("refiners-paint", files={"adapter.py": NEEDS_PICTURE, "adapter.toml": paint + inputs})
    style = paint.replace("paint", "style") + '[adapter.style.file]\nsummary = "a style"\n'
    toys.add("refiners-style", files={"adapter.py": EDGES, "adapter.toml": style})
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.png", "with,comma.png", "a=b.png", "odd:2", "s.safetensors"):
        (folder / name).write_bytes(b"")
    monkeypatch.chdir(folder)
    return folder


def read(text: str) -> tuple[Any, ...]:
    option: AdapterOption = parse_adapter_option(text)
    values = {name: str(path) for name, path in option.pictures.items()}
    return option.name, option.file or values.get("", values or None), option.scale, option.options


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("edges", ("edges", None, 1.0, {})),
        ("edges:0.5", ("edges", None, 0.5, {})),
        ("edges:-1e-1", ("edges", None, -0.1, {})),
        ("refiners-edges:edges", ("refiners-edges:edges", None, 1.0, {})),
        ("refiners-edges:edges:0.5", ("refiners-edges:edges", None, 0.5, {})),
        ("edges,rank=8", ("edges", None, 1.0, {"rank": 8})),
        ("edges:1,rank=8,mode=up", ("edges", None, 1.0, {"rank": 8, "mode": "up"})),
        ("edges:1,mode=true", ("edges", None, 1.0, {"mode": True})),
        ("edges:1,mode=None,strength=.5", ("edges", None, 1.0, {"mode": None, "strength": ".5"})),
        ('edges,mode="2"', ("edges", None, 1.0, {"mode": "2"})),
        ("edges=a.png", ("edges", "a.png", 1.0, {})),
        ("edges=a.png:0.5", ("edges", "a.png", 0.5, {})),
        ("edges:0.5=a.png", ("edges", "a.png", 0.5, {})),
        ("edges=a.png:0.5,rank=8", ("edges", "a.png", 0.5, {"rank": 8})),
        ("edges=a.png,rank=8", ("edges", "a.png", 1.0, {"rank": 8})),
        ("edges=with,comma.png", ("edges", "with,comma.png", 1.0, {})),
        ("edges=with,comma.png:2,rank=8", ("edges", "with,comma.png", 2.0, {"rank": 8})),
        ("edges=a=b.png", ("edges", "a=b.png", 1.0, {})),
        ("edges=odd:2", ("edges", "odd:2", 1.0, {})),
        ("edges=x=a.png,y=b.png", ("edges", {"x": "a.png", "y": "b.png"}, 1.0, {})),
        ("edges=x=a.png,y=b.png:2,rank=8",
         ("edges", {"x": "a.png", "y": "b.png"}, 2.0, {"rank": 8})),
        ("paint=picture=a.png,mask=b.png,rank=8",
         ("paint", {"picture": "a.png", "mask": "b.png"}, 1.0, {"rank": 8})),
        ("paint=picture=a.png:0.3", ("paint", {"picture": "a.png"}, 0.3, {})),
        ("style=s.safetensors", ("style", "s.safetensors", 1.0, {})),
        ("style=s.safetensors:0.8", ("style", "s.safetensors", 0.8, {})),
        ("style=s.safetensors:0.8,strength=2", ("style", "s.safetensors", 0.8, {"strength": 2})),
        ("style=hf:org/name@main/s.safetensors:0.8",
         ("style", "hf:org/name@main/s.safetensors", 0.8, {})),
        ("style:0.8,file=s.safetensors", ("style", "s.safetensors", 0.8, {})),
    ],
)  # fmt: skip
def test_an_adapter_is_parsed_into_value_scale_and_options(
    pictures: Path, text: str, meaning: tuple[Any, ...]
) -> None:
    assert read(text) == meaning


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("=a.png", "does not name an adapter"),
        (":0.5", "does not name an adapter"),
        ("edgse:0.5", "Did you mean 'edges'"),
        ("edges=c.png", "the picture c.png does not exist"),
        ("edges=a.png:nan", "the scale of edges is nan"),
        ("edges:inf", "the scale of edges is inf"),
        ("edges:0.5=a.png:0.5", "has two scales"),
        ("edges:abc", ":abc is not a scale of edges; write edges:0.8"),
        ("edges:", ": is not a scale of edges; write edges:0.8"),
        ("a.safetensors:0.8:0.9", ":0.8 is not a scale of a.safetensors"),
        ("edges,rank", "'rank' is not an option"),
        ("edges,rank=1,rank=2", "rank is given twice"),
        ("edges,model=x", "model is not an option of adapters"),
        ("paint=pictrue=a.png,mask=b.png", "did you mean picture"),
        ("style", "style needs a file"),
    ],
)
def test_a_malformed_adapter_is_refused(pictures: Path, text: str, words: str) -> None:
    result = run("generate", "x", "--model", "toy", "--adapter", text)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("edges,rnak=3", "Did you mean rank?"),
        ("edges=good.png", "edges does not take a picture"),
        ("paint", "--adapter paint=picture.png"),
        ("style=t.safetensors", "the file t.safetensors does not exist"),
    ],
)
def test_adapters_are_checked_before_anything_is_loaded(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    Image.new("RGB", (4, 4)).save(pictures / "good.png")
    monkeypatch.setattr("refiners.load.load_model", lambda *_, **__: pytest.fail("loaded"))
    result = run("generate", "x", "--model", "toy", "--adapter", text)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--sampler", "nonsense"), "--sampler ddim"),
        (("--size", "63"), "Try --size 64x64"),
        (("--strength", "0.3"), "Pass --image"),
        (("--negative", "blue", "--guidance", "1"), "--guidance 7.5"),
        (("--device", "cuda:9"), "--device cpu"),
        (("--model", "sd51"), "Did you mean 'sd15'"),
        (("--model", "./nowhere"), "the model ./nowhere does not exist"),
        (("--model", "hf:nonsense"), "is not the address of a Hub repository"),
    ],
)
def test_nothing_is_fetched_for_an_impossible_generation(
    hub: LoopbackHub, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    result = run("generate", "x", "--model", "sd15", "--out", str(tmp_path / "o.png"), *arguments)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())
    assert hub.requests == []


def test_names_are_checked_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom refiners.cli import main\n"
        "try: main(['generate', 'x', '--adapter', 'controlnet-cany'])\n"
        "finally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (2, "False")
    assert "Did you mean 'controlnet-canny'" in done.stderr


def test_size_may_be_one_side_and_several_pictures_are_numbered(toys: Site, tmp_path: Path):
    code = PAINTER.replace(
        'arguments["size"] in (None, (32, 8))', 'arguments["size"] == 32'
    ).replace(
        'return [Image.new("RGB", (8, 8), (int(255 * sum(scales)), 0, 0))]',
        'return [Image.new("RGB", (8, 8))] * arguments["count"]',
    )
    module = import_module("refiners_toy.model")
    exec(code, module.__dict__)
    out = tmp_path / "star.png"
    arguments = ("--model", "toy", "--size", "32", "--count", "3", "--out", str(out))
    result = run("generate", "x", *arguments)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        *("star-1.png", "star-2.png", "star-3.png")
    ]
    assert len(json.loads(run("generate", "x", *arguments, "--json").stdout)["outs"]) == 3


@pytest.mark.parametrize(
    ("text", "value", "scale", "options"),
    [
        ("edges:unet.up.0=1+unet.mid=0.4", None, {"unet.up.0": 1.0, "unet.mid": 0.4}, {}),
        (
            "edges:unet.up.0=1,unet.mid=0.4,rank=3",
            None,
            {"unet.up.0": 1, "unet.mid": 0.4},
            {"rank": 3},
        ),
        ("edges=a.png:text_encoder=.5,rank=3", "a.png", {"text_encoder": 0.5}, {"rank": 3}),
        ("edges=a.png:unet=-1e-2", "a.png", {"unet": -0.01}, {}),
        ("edges=with,comma.png:1@0+0.2@0.5", "with,comma.png", [(0.0, 1.0), (0.5, 0.2)], {}),
        ("edges:0.5@1,strength=2", None, [(1.0, 0.5)], {"strength": 2}),
        ("style=s.safetensors:unet=1", "s.safetensors", {"unet": 1.0}, {}),
    ],
)
def test_a_scale_by_place_or_over_the_steps_is_parsed(pictures, text, value, scale, options):
    assert read(text)[1:] == (value, scale, options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("edges:unet=1+unet=2", "the place unet has two scales in 'unet=1\\+unet=2'"),
        ("edges:1@1+0@0", "the points of '1@1\\+0@0' are not in order, between 0 and 1"),
        ("edges:1@0+0@2", "are not in order, between 0 and 1"),
        ("edges=a.png:0.5:unet=1", "edges has two scales; write edges:unet=1"),
    ],
)
def test_a_scale_by_place_that_makes_no_sense_is_refused(pictures, text, message):
    with pytest.raises(click.BadParameter, match=message):
        parse_adapter_option(text)
