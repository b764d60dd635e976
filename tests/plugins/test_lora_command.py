"""`refiners lora` writes files, prints their errors, and refuses wrong use in the shell's words."""

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from refiners.cli import main
from refiners.testing import LoopbackHub
from refiners_lora.command import lora
from refiners_lora.rework import merge

from refiners_core.command import Shell
from refiners_core.testing import tiny_model
from refiners_core.weights import TensorFile, write

INK = str(files("refiners_playground") / "weights" / "lora_ink.safetensors")


def run(*arguments):
    return CliRunner().invoke(main, ["lora", *map(str, arguments)])


def test_commands_write_files_and_print_their_errors(tmp_path):
    both, small = tmp_path / "both.safetensors", tmp_path / "small.safetensors"
    result = run("merge", f"{INK}:0.8", f"{INK}:-0.5", "--out", both, "--title", "Both")
    assert "56 layers of rank 32, diffusers" in result.stdout
    assert "unet attention     56      0.0e+00" in result.stdout
    assert not result.stderr
    facts = json.loads(run("resize", both, "--rank", "4", small, "--layout", "kohya",
                           "--json").stdout)  # fmt: skip
    assert facts["ranks"] == [4, 4]
    assert 0 < facts["errors"]["all"]["median"] < facts["errors"]["all"]["worst"] < 1
    folder = tmp_path / "peft"
    assert run("convert", small, folder, "--layout", "peft").exit_code == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    again = json.loads(run("convert", folder, small, "--force", "--json").stdout)
    assert again["errors"]["all"]["total"] == 0
    with TensorFile(both) as file:
        assert file.metadata()["modelspec.architecture"] == "playground/lora"
        assert file.metadata()["modelspec.title"] == "Both"


def test_refusals_are_in_words_of_the_shell(tmp_path):
    out = tmp_path / "out.safetensors"
    result = run("merge", f"{INK}:0.8", tmp_path / "none.safetensors", "--out", out)
    assert result.exit_code == 2
    assert "none.safetensors does not exist; write FILE or FILE:0.8." in result.stderr
    assert "Try --rank 8, or --energy 0.9." in run("resize", INK, out).stderr
    assert "Add --method svd." in run("merge", INK, "--rank", "4", "--out", out).stderr
    out.write_bytes(b"mine")
    refused = run("convert", INK, out)
    assert "Replace it with --force, or name another file." in refused.stderr
    assert (refused.exit_code, out.read_bytes()) == (2, b"mine")


def test_files_on_the_hub_are_fetched_with_what_lies_beside_them(tmp_path):
    out = tmp_path / "peft"
    assert run("convert", INK, out, "--layout", "peft").exit_code == 0
    contents = {path.name: path.read_bytes() for path in out.iterdir()}
    alone = {"weights/ink.safetensors": Path(INK).read_bytes()}
    with LoopbackHub() as hub, hub.in_use(tmp_path / "hf"):
        hub.publish("org/ink", {**contents, **alone, "unread.bin": b"never fetched"})
        made = tmp_path / "made.safetensors"
        assert run("convert", "hf:org/ink/adapter_model.safetensors", made).exit_code == 0
        facts = json.loads(run("merge", "hf:org/ink/weights/ink.safetensors:0.5", made, "--out",
                               tmp_path / "both.safetensors", "--json").stdout)  # fmt: skip
        assert facts["ranks"] == [32, 32]
        missing = run("resize", "hf:org/ink/none.safetensors", "--rank", "2", tmp_path / "x")
        assert "org/ink has no file none.safetensors" in missing.stderr
        assert not [request for request in hub.requests if "unread" in request.path]


def test_a_file_of_no_installed_model_asks_for_a_model(tmp_path):
    path = tmp_path / "text.safetensors"
    name = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    write({f"{name}.lora_down.weight": torch.ones(2, 8),
           f"{name}.lora_up.weight": torch.ones(32, 2)}, path)  # fmt: skip
    result = run("convert", path, tmp_path / "out.safetensors")
    assert result.exit_code == 2
    assert "the model is not clear from the layers" in result.stderr
    assert "Name it: --model" in result.stderr
    wrong = run("convert", path, tmp_path / "out.safetensors", "--model", "sd15")
    assert "1 of 1 layers have other sizes" in wrong.stderr


class Tiny(Shell):
    """Has a tiny model, and a tuned copy of it."""

    def load_model(self, what):
        model = tiny_model()
        if what == "tuned":
            with torch.no_grad():
                model.unet.layer("conv_in").weight.mul_(1.5)
                model.unet.layer("conv_in").bias.add_(1)
        return model

    def outline(self, what):
        return self.load_model(what)

    def fetch(self, file):
        return Path(file)

    def models_for(self, file):
        return ["base"]


def invoked(*arguments):
    return lora.main([*map(str, arguments)], obj=Tiny(), standalone_mode=False)


def test_two_models_give_a_lora(tmp_path):
    out = tmp_path / "style.safetensors"
    options = ("--base", "base", "--tuned", "tuned", "--rank", "8", "--dtype", "float16")
    report = invoked("extract", *options, out)
    assert report.title.endswith("1 layers of rank 8, diffusers; left out: 1 changes")
    assert report.facts["errors"]["unet convolution"]["worst"] < 1e-3
    assert [dropped["layer"] for dropped in report.facts["dropped"]] == ["unet.conv_in"]
    with TensorFile(out) as file:
        assert file.tensor("unet.conv_in.lora_A.weight").dtype == torch.float16
        sources = json.loads(file.metadata()["refiners.sources"])
    assert [source["name"] for source in sources] == ["base", "tuned"]
    assert sources[0]["sha256"] != sources[1]["sha256"]


@pytest.mark.parametrize("method", ["ties", "dare"])
def test_options_reach_the_method(method, tmp_path):
    out = tmp_path / "both.safetensors"
    invoked("extract", "--base", "base", "--tuned", "tuned", "--rank", "3", out)
    shell, python = tmp_path / "shell.safetensors", tmp_path / "python.safetensors"
    options = ("--method", method, "--rank", "2", "--density", "0.3", "--seed", "7")
    invoked("merge", f"{out}:0.6", out, *options, "--out", shell)
    merged = merge([(out, 0.6), (out, 1.0)], tiny_model(), method, rank=2, density=0.3, seed=7)
    merged.save(python, title="shell")
    assert shell.read_bytes() == python.read_bytes()


def test_the_help_loads_no_torch():
    code = (
        "import sys\nfrom refiners.cli import main\n"
        "for words in (['--help'], ['lora', '--help'], ['lora', 'merge', '--help']):\n"
        "    try:\n        main(words)\n    except SystemExit as error:\n"
        "        assert error.code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "lora A command of refiners-lora." in " ".join(result.stdout.split())
