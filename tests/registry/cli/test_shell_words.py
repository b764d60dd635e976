"""Messages on the shell use its words; commands take paths and announce a wait."""

import json
import time
import warnings
from pathlib import Path

import click
import pytest
import refiners
from click.testing import CliRunner
from PIL import Image
from refiners.cli import main
from refiners.cli.shell_words import OPTIONS, shell_words
from refiners.errors import Notice, OptionError
from refiners.hub import wait_notice
from refiners.hub.client import Hub
from refiners.hub.errors import patiently
from refiners.recipe.picture import open_picture
from refiners.testing import Fault, LoopbackHub

from refiners_core.argument_names import WORDS
from refiners_core.testing import tiny_model

from ..conftest import EDGES_TOML, TOY_MODEL_TOML, Site
from .test_commands import PAINTER
from .test_shell import refused, run


@pytest.fixture
def toys(site: Site) -> Site:
    manifest = TOY_MODEL_TOML.replace("model:build", "model:paint")
    site.add("refiners-toy", files={"model.py": PAINTER, "model.toml": manifest})
    return site


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("--num-inference-steps", "--steps"),
        ("--num_inference_steps", "--steps"),
        ("--guidance-scale", "--guidance"),
        ("--num-images-per-prompt", "--count"),
        ("--generator", "--seed"),
        ("--height", "--size"),
        ("--negative-prompt", "--negative"),
        ("--control-image", "--adapter NAME=PICTURE:SCALE"),
        ("--torch-dtype", "--dtype"),
    ],
)
def test_names_from_diffusers_are_suggested_on_the_shell(option: str, meant: str) -> None:
    result = run("generate", "x", option, "3")
    assert result.exit_code == 2
    assert f"Did you mean {meant}?" in result.stderr
    assert refused("generate", "x", option, "3")["hint"] == f"Did you mean {meant}?"


def test_an_unknown_option_without_a_suggestion_is_left_to_click() -> None:
    assert "Did you mean" not in run("list", "--num-inference-steps", "3").stderr


@pytest.mark.parametrize(
    ("python", "shell"),
    [
        ("Try size=(512, 512).", "Try --size 512x512."),
        ('Try device="cpu".', "Try --device cpu."),
        ("It works with offline=True.", "It works with --offline."),
        ("Leave negative_prompt out.", "Leave --negative out."),
        ("Pass image= as well.", "Pass --image as well."),
        ('Try refiners.load_model("sd15").', "Try --model sd15."),
        (
            'Condition(picture, preprocess="refiners-a:canny")',
            "--adapter NAME=PICTURE,preprocess=refiners-a:canny",
        ),
        (
            'Pass the function: conditions={"canny.preprocess": function}.',
            "Write --adapter canny=PICTURE,preprocess=NAME.",
        ),
        ('load_adapter("lora", model, file="a.safetensors")', "--adapter lora=a.safetensors"),
        ('load_adapter("lora", model, file="a b.safetensors")', "--adapter lora='a b.safetensors'"),
        ('load_adapter("a.safetensors", model)', "--adapter a.safetensors"),
        ('load_adapter("a.safetensors", model, end="up")', "--adapter a.safetensors,end=up"),
        ('Try device="a b".', "Try --device 'a b'."),
        ("refiners_core.weights.rewrite_pickle('a b', 'c', sha256=...).",
         "python -c \"from refiners_core.weights import rewrite_pickle; "
         "rewrite_pickle('a b', 'c', sha256='SHA256')\"."),
        ("conditions={adapter: picture}", "--adapter NAME=PICTURE"),
        ("needs cross_attention_dim = 768", "needs cross_attention_dim = 768"),
        ("Its options: rank.", "Its options: rank."),
    ],
)  # fmt: skip
def test_hints_for_python_are_translated_for_the_shell(python: str, shell: str) -> None:
    assert shell_words(python, [*OPTIONS.values(), "--model"]) == shell


def test_a_command_without_the_option_gets_the_variable() -> None:
    assert shell_words("works with offline=True.", []) == "works with REFINERS_OFFLINE=1."


def test_hints_name_options_of_generate_and_write() -> None:
    commands = [main.get_command(click.Context(main), name) for name in ("generate", "write")]
    names = {"PROMPT", "--lock"}
    for command in commands:
        assert command is not None
        names |= {name for parameter in command.params for name in parameter.opts}
    assert {*OPTIONS.values()} <= names
    assert {*WORDS.values()} <= {*OPTIONS, "callback"}


def test_dir_lists_the_public_names() -> None:
    shown = [name for name in dir(refiners) if not name.startswith("_")]
    assert shown == sorted([*refiners.__all__, "errors", "testing"])


def test_names_are_completed_with_the_tab_key(toys: Site) -> None:
    toys.add_edges()
    variables = {"_REFINERS_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
    info = CliRunner().invoke(
        main, prog_name="refiners", env={**variables, "COMP_WORDS": "refiners info ed"}
    )
    assert info.stdout.split() == ["plain,edges"]


@pytest.mark.parametrize("path", ["model.safetensors", "./folder", "folder"])
def test_tree_why_and_info_take_paths(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    site.add_edges(EDGES_TOML.replace('base = "toy"', 'base = "sd15"').replace("width", "height"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "model.safetensors").write_bytes(b"12345678")
    monkeypatch.chdir(tmp_path)
    opened: list[Path] = []
    monkeypatch.setattr(
        "refiners_core.models.formats.open.open_model",
        lambda path: opened.append(path) or tiny_model(),
    )
    assert "unet" in run("tree", path, "--depth", "1").stdout
    if path.endswith("folder"):  # a file is described by its header
        assert json.loads(run("info", path, "--json").stdout)["base"] == "sd15"
        assert "M weights" in run("info", path).stdout
    verdict = run("why", "edges", "--model", path)
    assert (verdict.exit_code, "needs height = 2" in verdict.stdout) == (1, True)
    assert opened == [Path(path)] * (4 if path.endswith("folder") else 2)


def test_python_suggests_the_path_of_a_folder_without_a_slash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(refiners.UnknownNameError) as caught:
        refiners.load_model("mine")
    assert str(tmp_path / "mine") in caught.value.hint


def test_pictures_are_rotated_as_viewers_do(tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 2), "blue")
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.png", exif=exif)
    assert open_picture(tmp_path / "turned.png").size == (2, 4)
    for mode, expected in (("L", "RGB"), ("P", "RGB"), ("RGBA", "RGBA"), ("I;16", "I;16")):
        Image.new(mode, (4, 2)).save(tmp_path / "plain.png")
        assert open_picture(tmp_path / "plain.png").mode == expected
    with pytest.raises(OptionError, match="is not a picture"):
        open_picture(Path(__file__))


def test_a_long_wait_is_announced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait_notice, "_SOON", 0.01)
    monkeypatch.setattr(wait_notice, "_announced", set())
    pause = time.sleep

    def wait_for_the_hub() -> None:
        for _ in range(2):
            with wait_notice.announced("waiting for the Hub"):
                pause(0.1)

    with pytest.warns(Notice, match=r"waiting for the Hub \.\.\.") as notices:
        wait_for_the_hub()
    assert len(notices) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with wait_notice.announced("something short"):
            pass


def test_another_attempt_is_announced(hub: LoopbackHub) -> None:
    hub.publish("org/w", {"a": b"1"})
    hub.fail("info", Fault.UNAVAILABLE, times=1)
    with pytest.warns(Notice, match="trying again in 1 s"):
        Hub.from_environment().contents("org/w")
    assert patiently(lambda: 3) == 3
