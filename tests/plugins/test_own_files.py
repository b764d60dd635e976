"""The files of first-party adapters, taken as files of a user, do what the named adapters do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import refiners
import refiners_playground
import torch
from click.testing import CliRunner
from PIL import Image
from refiners.cli import main
from refiners_lora.adapter import Lora
from refiners_t2iadapter.adapter import T2iAdapter

from refiners_core import Condition
from refiners_core.testing import tiny_model
from refiners_core.weights import write

WEIGHTS = Path(refiners_playground.__file__).parent / "weights"
PICTURE = Image.linear_gradient("L").convert("RGB").resize((64, 64))
FILES = {
    "controlnet-canny": ("controlnet.safetensors", "controlnet", PICTURE),
    "ip-adapter": ("ip_adapter.safetensors", "ip-adapter", PICTURE),
    "lora-ink": ("lora_ink.safetensors", "lora", None),
}
"""For each named adapter: its file on the playground, the reader of such files, a condition."""


@pytest.fixture(scope="module")
def model() -> Any:
    return refiners.load_model("playground")


@pytest.fixture
def drawn(model: Any) -> Callable[..., torch.Tensor]:
    def draw(*worn: Any, value: Any = None) -> torch.Tensor:
        arguments = {"steps": 1, "seed": 1, "output": "latents", "progress": False}
        conditions = {adapter: Condition(value) for adapter in worn}
        return model.generate("a heart", conditions=conditions, **arguments)

    return draw


@pytest.mark.parametrize("name", FILES)
def test_a_file_does_what_the_named_adapter_does(
    name: str, model: Any, drawn: Callable[..., torch.Tensor], tmp_path: Path
):
    file, reader, value = FILES[name]
    shutil.copy(WEIGHTS / file, tmp_path / "mine.safetensors")
    bare = drawn()
    with refiners.load_adapter(name).on(model) as named:
        wanted = drawn(named, value=value)
    with refiners.load_adapter(tmp_path / "mine.safetensors").on(model) as adapter:
        assert adapter.name == reader
        assert torch.equal(drawn(adapter, value=value), wanted)
    assert not torch.equal(wanted, bare)
    assert torch.equal(drawn(), bare)


def test_a_configuration_of_peft_beside_the_file_sets_the_strength(model: Any, tmp_path: Path):
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    factors = {"A": torch.ones(2, 32), "B": torch.ones(32, 2)}
    keys = {f"base_model.model.{name}.lora_{half}.weight": w for half, w in factors.items()}
    folder = tmp_path / "peft"
    folder.mkdir()
    write(keys, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 6}))
    with refiners.load_adapter(folder).on(model) as adapter:
        (change,) = [layer for layer in adapter.modules() if hasattr(layer, "alpha")]
        assert change.alpha == 6


def test_a_question_that_a_file_leaves_open_is_answered_by_an_option(tmp_path: Path):
    T2iAdapter(name="t2i").inject(tiny_model()).save(tmp_path / "pose.safetensors")
    for options, order in (({}, "rgb"), ({"channel_order": "bgr"}, "bgr")):
        adapter: Any = refiners.load_adapter(tmp_path / "pose.safetensors", tiny_model(), **options)
        assert adapter.channel_order == order
    with pytest.raises(refiners.OptionError, match="rgb or bgr"):
        refiners.load_adapter(tmp_path / "pose.safetensors", channel_order="gbr")


def test_the_shell_takes_files_with_pictures_scales_and_options(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Lora(rank=4).inject(model).save("style, =1.safetensors")
    model.eject_all()
    shutil.copy(WEIGHTS / "controlnet.safetensors", "lines.safetensors")
    PICTURE.save("edges.png")
    arguments = ["generate", "a heart", "--steps", "1", "--out", "o.png", "--json"]
    adapters = ["style, =1.safetensors:0.5", "./lines.safetensors=edges.png:0.7"]
    named = ["lora=style, =1.safetensors:0.5", "controlnet=edges.png:0.7,file=lines.safetensors"]
    pictures: list[bytes] = []
    canonical = ["refiners-lora:lora", "refiners-controlnet:controlnet"]
    for options, names in ((adapters, canonical), (named, ["lora", "controlnet"])):
        done = CliRunner().invoke(
            main, [*arguments, *(w for o in options for w in ("--adapter", o))]
        )
        assert done.exit_code == 0, done.output
        facts = json.loads(done.stdout)["adapters"]
        assert [fact["name"] for fact in facts] == names
        assert [fact["scale"] for fact in facts] == [0.5, 0.7]
        pictures.append(Path("o.png").read_bytes())
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        ("nope.safetensors", "the file nope.safetensors does not exist"),
        ("lines.safetensors", "Write --adapter lines.safetensors=picture.png"),
        ("lines.safetensors=nope.png", "the picture nope.png does not exist"),
        ("lines.safetensors=edges.png,rnak=3", "it takes no rnak"),
        ("style.safetensors=edges.png", "does not take a picture"),
        ("xl.safetensors", "a LoRA for sdxl (kohya, diffusers' names), not for playground"),
        ("lora=xl.safetensors", "a LoRA for sdxl (kohya, diffusers' names), not for playground"),
    ],
)
def test_a_file_is_checked_before_the_model_is_loaded(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: str, words: str
):
    monkeypatch.chdir(tmp_path)
    PICTURE.save("edges.png")
    shutil.copy(WEIGHTS / "controlnet.safetensors", "lines.safetensors")
    shutil.copy(WEIGHTS / "lora_ink.safetensors", "style.safetensors")
    key = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    pair = {"lora_down": torch.zeros(2, 2048), "lora_up": torch.zeros(640, 2)}
    write({f"{key}.{half}.weight": weight for half, weight in pair.items()}, "xl.safetensors")
    monkeypatch.setattr("refiners.load.load_model", lambda *_, **__: pytest.fail("loaded"))
    done = CliRunner().invoke(main, ["generate", "x", "--adapter", adapter])
    assert done.exit_code, done.output
    assert words in " ".join(done.stderr.split()) or words in str(done.exception)


def test_trees_and_verdicts_take_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(WEIGHTS / "lora_ink.safetensors", "style.safetensors")
    tree = CliRunner().invoke(main, ["tree", "playground", "--with", "style.safetensors"])
    assert "<- lora" in tree.output
    suits = CliRunner().invoke(main, ["why", "style.safetensors", "playground"])
    assert (suits.exit_code, "a LoRA for playground (diffusers)" in suits.output) == (0, True)
    other = CliRunner().invoke(main, ["why", "style.safetensors", "sd15", "--json"])
    (verdict,) = json.loads(other.output)["models"]["sd15"]
    assert (other.exit_code, verdict["reason"]) == (1, "it has cross_attention_dim = 96, not 768")
    assert verdict["hint"] == "Load a model of base playground."
