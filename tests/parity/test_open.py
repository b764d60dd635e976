"""Models from where they lie: what is there is recognised, what cannot be read is named."""

import hashlib
import json
import shutil
from dataclasses import replace

import pytest
import refiners
import torch
from safetensors.torch import save_file

from refiners_core import weights
from refiners_core.errors import ModelError, WeightsError
from refiners_core.models.assembly import assemble
from refiners_core.models.clip import ClipTextConfig
from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.families import FAMILIES
from refiners_core.models.formats.open import open_model
from refiners_core.models.formats.single_file import Parts, single_file_keys
from refiners_core.models.unet import UNet, UNetConfig
from refiners_core.models.vae import AutoencoderConfig

# As wide as the releases where a header is looked at, and as small as can be elsewhere.
LEAN = {
    "channels": (8, 8),
    "layers": (1, 1),
    "depths": (1, 0),
    "heads": (1, 1),
    "mid_depth": 1,
    "groups": 4,
}


@pytest.fixture
def lean(monkeypatch):
    """Makes the released sizes small but for the width of texts, which tells releases apart."""
    sizes = replace(UNetConfig(), **LEAN)
    text = replace(ClipTextConfig(), layers=1, vocabulary=99, inner_width=8)
    autoencoder = AutoencoderConfig(channels=(8, 8), blocks=1, groups=4)
    family = replace(FAMILIES["sd15"], unet=sizes, text_encoders=(text,), autoencoder=autoencoder)
    monkeypatch.setitem(FAMILIES, "sd15", family)
    return lambda channels=4: assemble(family, unet=replace(sizes, in_channels=channels))


def save(model, path, **extra):
    tensors = weights.published(Parts(model), single_file_keys(model))
    save_file({**tensors, **extra}, path)
    return path


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_the_family_of_a_folder_is_recognised(kind, request):
    pipe, folder = request.getfixturevalue(f"{kind}_folder")
    model = open_model(folder)
    assert model.base == kind
    wanted = pipe.unet.state_dict()["conv_in.weight"]
    assert torch.equal(model.unet.conv_in.weight, wanted)
    assert open_model(folder, dtype=torch.float16).unet.dtype == torch.float16


def test_a_single_file_is_read_as_the_release_of_its_shapes(lean, tmp_path):
    theirs = lean()
    model = open_model(save(theirs, tmp_path / "m.safetensors"))
    assert (model.base, model.tokenizer) == ("sd15", None)
    assert model.sampler.schedule.prediction == "eps"
    before = theirs.state_dict()
    assert all(torch.equal(it, before[path]) for path, it in model.state_dict().items())


def test_the_prediction_of_a_file_is_read(lean, tmp_path):
    path = save(lean(), tmp_path / "m.safetensors", v_pred=torch.tensor([]))
    assert open_model(path).sampler.schedule.prediction == "v"


def test_an_inpainting_file_is_read(lean, tmp_path):
    model = open_model(save(lean(9), tmp_path / "m.safetensors"))
    assert model.unet.config.in_channels == 9


def test_a_tokenizer_beside_the_file_is_used(lean, tmp_path, sd15_folder, monkeypatch):
    path = save(lean(), tmp_path / "m.safetensors")
    shutil.copytree(sd15_folder[1] / "tokenizer", tmp_path / "tokenizer")
    with pytest.raises(ModelError, match="a prompt has tokens: 32"):
        open_model(path)
    monkeypatch.setattr(ClipTokenizer, "load", lambda *_: None)
    assert open_model(path).tokenizer is None


def test_a_sharded_folder_equals_the_unsharded_one(sd15_folder, tmp_path):
    pipe, folder = sd15_folder
    pipe.save_pretrained(tmp_path, max_shard_size="30KB")
    names = {path.name for path in tmp_path.glob("*/*.index.json")}
    assert names == {
        "diffusion_pytorch_model.safetensors.index.json",
        "model.safetensors.index.json",
    }
    whole = open_model(folder).state_dict()
    sharded = open_model(tmp_path).state_dict()
    assert sharded.keys() == whole.keys()
    assert all(torch.equal(tensor, whole[path]) for path, tensor in sharded.items())


def test_a_folder_in_half_precision_alone_is_read(sd15_folder, tmp_path):
    pipe, _ = sd15_folder
    pipe.save_pretrained(tmp_path, variant="fp16", max_shard_size="100KB")
    assert list(tmp_path.glob("unet/*.index.fp16.json"))
    model = open_model(tmp_path, dtype=torch.float16)
    wanted = pipe.unet.state_dict()["conv_in.weight"].half()
    assert torch.equal(model.unet.conv_in.weight, wanted)


def test_a_pickle_is_refused_and_can_be_rewritten_with_its_hash(lean, tmp_path):
    theirs = lean()
    tensors = weights.published(Parts(theirs), single_file_keys(theirs))
    path = tmp_path / "model.ckpt"
    torch.save({"global_step": 7, "state_dict": tensors}, path)
    with pytest.raises(WeightsError, match="is a pickle, which could run any code") as caught:
        open_model(path)
    typed = caught.value.hint.partition("refiners_core.")[2].rstrip(".")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    eval(typed.replace("...", repr(digest)), {"weights": weights})  # as the hint says
    before = theirs.state_dict()
    again = open_model(path.with_suffix(".safetensors")).state_dict()
    assert all(torch.equal(tensor, before[key]) for key, tensor in again.items())


def test_a_truncated_model_is_refused_with_all_missing_keys(lean, tmp_path):
    path = save(lean(), tmp_path / "m.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="truncated"):
        open_model(path)
    tensors = weights.published(Parts(lean()), single_file_keys(lean()))
    del tensors["first_stage_model.quant_conv.bias"]
    save_file(tensors, path)
    with pytest.raises(weights.MisfitError) as error:
        open_model(path)
    assert error.value.missing == ("first_stage_model.quant_conv.bias",)


ATTENTION = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
PARTS = {"first_stage_model.x": (1,)}
UNSUPPORTED = [
    ({"weight": (1,)}, "not a whole model: it holds 'weight'", "has the UNet"),
    ({}, "not a whole model: it holds no tensors", "has the UNet"),
    ({ATTENTION: (4, 1024), **PARTS}, "another family: it reads texts of width 1024", "1.5 and XL"),
    ({ATTENTION: (4, 768)}, "not a whole model", "has the UNet"),
    (PARTS, "another family: it reads no text", "Stable Diffusion 1.5 and XL"),
    (
        {ATTENTION: (4, 768), **PARTS, "model.diffusion_model.input_blocks.0.0.weight": (4, 8)},
        "another kind: its UNet reads 8 channels",
        "Stable Diffusion 1.5 and XL",
    ),
]


@pytest.mark.parametrize(("tensors", "fact", "hint"), UNSUPPORTED)
def test_a_file_that_is_not_a_supported_model_is_refused(tensors, fact, hint, tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({key: torch.zeros(shape) for key, shape in tensors.items()}, path)
    with pytest.raises(ModelError) as error:
        open_model(path)
    assert fact in error.value.message
    assert hint in error.value.hint


@pytest.mark.parametrize(
    ("tensors", "fact", "hint"),
    [
        ({"lora_unet_mid.lora_down.weight": (2, 2)}, "a LoRA (kohya)", "as an adapter"),
        (
            {"image_proj.proj.weight": (2, 2), "image_proj.norm.weight": (2,),
             "ip_adapter.1.to_k_ip.weight": (2, 768)},
            "an IP-Adapter for sd15 (linear projection)",
            "as an adapter",
        ),
        ({"vision_model.x": (1,)}, "an image encoder", "beside an adapter"),
        ({"encoder.down.0.x": (1,)}, "an autoencoder", "a whole model"),
        (
            {ATTENTION: (4, 1024), **PARTS},
            "a whole model for sd2 (single file)",
            "refiners list",
        ),
        (
            {"model.diffusion_model.joint_blocks.0.x": (1,)},
            "a whole model for sd3 (single file)",
            "refiners list",
        ),
    ],
)  # fmt: skip
def test_foreign_files_are_named(tensors, fact, hint, tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({key: torch.zeros(shape) for key, shape in tensors.items()}, path)
    with pytest.raises(ModelError) as error:
        refiners.load_model(path)
    assert fact in error.value.message
    assert hint in error.value.hint


def test_foreign_folders_are_named(sd15_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(sd15_folder[1], folder)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(ModelError, match=r"is a FluxPipeline. Stable Diffusion 1.5 and XL"):
        open_model(folder)
    (folder / "model_index.json").unlink()
    assert open_model(folder).base == "sd15"
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps(config | {"cross_attention_dim": 1024}))
    with pytest.raises(ModelError, match="is Stable Diffusion 2"):
        open_model(folder)
    with pytest.raises(ModelError, match=r"elsewhere is neither a file nor a folder"):
        open_model(tmp_path / "elsewhere")


def test_a_part_is_not_a_model(tmp_path):
    with torch.device("meta"):
        unet = UNet(UNetConfig(**LEAN))
    path = tmp_path / "unet.safetensors"
    weights.save(unet.to_empty(device="cpu"), path, weights.AS_IS)
    with pytest.raises(ModelError, match="not a whole model"):
        open_model(path)
