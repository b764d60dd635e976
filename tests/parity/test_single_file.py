"""Single files: what is saved as one is what diffusers reads, bit for bit, and back."""

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import save_file

from refiners_core import weights
from refiners_core.models import sd15, sdxl
from refiners_core.models.formats.single_file import Parts, single_file_keys

CASES = {"sd15": (StableDiffusionPipeline, sd15), "sdxl": (StableDiffusionXLPipeline, sdxl)}


@pytest.fixture(params=CASES)
def case(request):
    """Theirs, its class, ours, and the folder of both."""
    kind, family = CASES[request.param]
    pipe, folder = request.getfixturevalue(f"{request.param}_folder")
    return pipe, kind, family.load_folder(folder, base="tiny"), folder


def test_diffusers_reads_what_is_saved(case, tmp_path):
    pipe, kind, ours, folder = case
    file = tmp_path / "model.safetensors"
    weights.save(Parts(ours), file, single_file_keys(ours))
    again = kind.from_single_file(file, config=str(folder), local_files_only=True)
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if hasattr(pipe, name):
            state = getattr(again, name).state_dict()
            wanted = getattr(pipe, name).state_dict()
            assert state.keys() == wanted.keys()
            assert all(torch.equal(state[key], wanted[key]) for key in wanted)


def test_saved_weights_are_read_again(case, tmp_path):
    _, _, ours, _ = case
    layout = single_file_keys(ours)
    tensors = weights.published(Parts(ours), layout)
    extra = {"model_ema.decay": torch.ones(1), "betas": torch.ones(3), "v_pred": torch.ones(1)}
    save_file(tensors | extra, tmp_path / "model.safetensors")
    before = {path: tensor.clone() for path, tensor in ours.state_dict().items()}
    parts = Parts(ours).to("meta")
    weights.load(parts, tmp_path / "model.safetensors", layout)
    after = ours.state_dict()
    assert all(torch.equal(tensor, after[path]) for path, tensor in before.items())


def test_all_misfits_are_listed_at_once(case):
    _, _, ours, _ = case
    layout = single_file_keys(ours)
    tensors = weights.published(Parts(ours), layout)
    tensors["model.diffusion_model.stray"] = tensors.pop("model.diffusion_model.out.2.bias")
    tensors["first_stage_model.quant_conv.bias"] = torch.zeros(3)
    with pytest.raises(weights.MisfitError) as error:
        weights.load(Parts(ours), tensors, layout)
    assert error.value.missing == ("model.diffusion_model.out.2.bias",)
    assert error.value.unexpected == ("model.diffusion_model.stray",)
    assert list(error.value.misshapen) == ["first_stage_model.quant_conv.bias"]


@pytest.mark.parametrize("case", ["sdxl"], indirect=True)
def test_a_stacked_matrix_of_another_shape_is_listed_once(case):
    _, _, ours, _ = case
    layout = single_file_keys(ours)
    tensors = weights.published(Parts(ours), layout)
    key = "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"
    assert tensors[key].shape == (72, 24)
    tensors[key] = tensors[key][:-1]
    with pytest.raises(weights.MisfitError) as error:
        weights.load(Parts(ours), tensors, layout)
    assert error.value.misshapen == {key: ((71, 24), (72, 24))}


def test_a_file_of_official_size_has_the_published_number_of_bytes():
    ours = sdxl.build(device="meta")
    tensors = weights.published(Parts(ours), single_file_keys(ours))
    # sd_xl_base_1.0.safetensors has position_ids and logit_scale as well, and 6,938,078,334 bytes.
    assert len(tensors) == 2515 - 2
    size = 2 * sum(tensor.numel() for tensor in tensors.values())
    assert 0 < 6_938_078_334 - size < 500_000
