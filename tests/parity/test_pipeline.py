"""Live pipelines of diffusers as models of ours, and back: the very same tensors."""

import pytest
import torch

from refiners_core.errors import ModelError
from refiners_core.models.formats.pipeline import from_pipeline, is_pipeline, to_diffusers
from refiners_core.weights import MisfitError

from .pipelines import sd15_pipeline, sdxl_pipeline

NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
BUILD = {"sd15": sd15_pipeline, "sdxl": sdxl_pipeline}


@pytest.fixture(scope="module", params=BUILD)
def pair(request):
    pipe = BUILD[request.param]()
    return pipe, from_pipeline(pipe), request.param


def addresses(networks):
    return {weight.data_ptr() for network in networks for weight in network.parameters()}


def networks(pipe):
    return [getattr(pipe, name) for name in NETWORKS if hasattr(pipe, name)]


def latents(pipe):
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    arguments = {"num_inference_steps": 3, "guidance_scale": 5.0, "output_type": "latent"}
    return noise, pipe("a red circle", latents=noise, **arguments).images


def test_all_tensors_are_shared_both_ways(pair):
    pipe, ours, base = pair
    parts = ours.unet, ours.autoencoder, ours.text_encoder
    assert addresses(parts) == addresses(networks(pipe))
    assert addresses(networks(to_diffusers(ours))) == addresses(networks(pipe))
    assert ours.base == base
    assert is_pipeline(pipe)
    assert not is_pipeline(ours)


def test_images_equal_those_of_the_pipeline(pair):
    pipe, ours, _ = pair
    noise, expected = latents(pipe)
    arguments = {"steps": 3, "guidance": 5.0, "output": "latents", "progress": False}
    made = ours.generate("a red circle", latents=noise, **arguments)
    assert (made - expected).norm() / expected.norm() <= 1e-5


def test_the_exported_pipeline_generates_the_same(pair):
    pipe, ours, _ = pair
    again = to_diffusers(ours)
    again.set_progress_bar_config(disable=True)
    assert torch.equal(latents(again)[1], latents(pipe)[1])
    for name in NETWORKS:
        if hasattr(pipe, name):
            ours_state, theirs_state = (
                getattr(again, name).state_dict(),
                getattr(pipe, name).state_dict(),
            )
            assert ours_state.keys() == theirs_state.keys()


def test_a_pipeline_that_wears_adapters_is_refused():
    pipe = sd15_pipeline()
    import peft

    pipe.unet.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q"]))
    with pytest.raises(MisfitError) as error:
        from_pipeline(pipe)
    assert "unload it there first" in error.value.__notes__[0]


def test_an_incomplete_pipeline_is_refused(pair):
    pipe, _, _ = pair
    lacking = type(
        "Half", (), {"components": {k: v for k, v in pipe.components.items() if k != "vae"}}
    )
    with pytest.raises(ModelError, match="this Half has no vae"):
        from_pipeline(lacking())


def test_a_pipeline_without_weights_is_refused(pair):
    _, ours, _ = pair
    pipe = to_diffusers(ours)
    pipe.unet.to("meta")
    with pytest.raises(ModelError, match="offloaded"):
        from_pipeline(pipe)
    with pytest.raises(ModelError, match="has no weights"):
        to_diffusers(from_meta(ours))


def from_meta(model):
    twin = from_pipeline(to_diffusers(model))
    twin.unet.to("meta")
    return twin


def test_training_the_model_trains_the_pipeline(pair):
    pipe, ours, _ = pair
    with torch.no_grad():
        ours.unet.conv_out.bias.fill_(1)
    assert torch.equal(pipe.unet.conv_out.bias, torch.ones(4))
