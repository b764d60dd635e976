"""Whole generations of 20 steps with guidance, by each sampler that diffusers has too."""

import diffusers
import pytest
import torch

from refiners_core.models import sd15, sdxl
from refiners_core.models.clip import ClipSkip
from refiners_core.models.samplers import (
    DDIM,
    DPM2M,
    DPM2MSDE,
    LCM,
    TCD,
    Euler,
    EulerAncestral,
    ScheduleConfig,
)

SMALL = {
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
}
SAMPLERS = {
    "ddim": (DDIM(), "DDIMScheduler", {"clip_sample": False}, {}),
    "ddim, noisy": (DDIM(eta=0.7), "DDIMScheduler", {"clip_sample": False}, {"eta": 0.7}),
    "euler": (Euler(), "EulerDiscreteScheduler", {}, {}),
    "euler, karras": (Euler(), "EulerDiscreteScheduler", {"use_karras_sigmas": True}, {}),
    "euler ancestral": (EulerAncestral(), "EulerAncestralDiscreteScheduler", {}, {}),
    "2m": (DPM2M(), "DPMSolverMultistepScheduler", {}, {}),
    "2m, karras": (DPM2M(), "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, {}),
    "2m sde": (
        DPM2MSDE(),
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++"},
        {},
    ),
    "lcm": (LCM(), "LCMScheduler", {}, {}),
    "tcd": (TCD(), "TCDScheduler", {}, {"eta": 0.3}),
}
PLAIN = [name for name in SAMPLERS if "," not in name]
XL = [name if name == "ddim" else pytest.param(name, marks=pytest.mark.slow) for name in PLAIN]
"""Samplers do not depend on the family, so one represents all of them on the larger networks."""
PROMPTS = {"prompt": "a red circle", "negative_prompt": "dull"}
SEEDS = [7, 8]


@pytest.fixture(scope="module")
def pair(build_pipeline, tmp_path_factory):
    return both(build_pipeline(SMALL), tmp_path_factory)


@pytest.fixture(scope="module")
def painting_pair(build_pipeline, tmp_path_factory):
    """Both with an inpainting UNet."""
    return both(build_pipeline(SMALL | {"in_channels": 9}), tmp_path_factory)


def both(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    pipe.save_pretrained(folder)
    return pipe, sd15.load_folder(folder, base="tiny")


def alike(pair, name, kind=diffusers.StableDiffusionPipeline, **schedule):
    """Returns their pipeline and arguments, and our sampler."""
    pipe, _ = pair
    ours, scheduler, settings, more = SAMPLERS[name]
    theirs = getattr(diffusers, scheduler)(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        **settings,
        **({} if name in ("lcm", "tcd", "2m, karras", "euler, karras") else TRAILING),
        **schedule,
    )
    parts = pipe.components | {"scheduler": theirs}
    # Without safety checker and watermark.
    peer = kind(
        **parts,
        **{"add_watermarker" if "XL" in kind.__name__ else "requires_safety_checker": False},
    )
    peer.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    arguments = PROMPTS | {
        "num_images_per_prompt": 2,
        "num_inference_steps": 20,
        "guidance_scale": 5.0,
    }
    sampler = type(ours)(ScheduleConfig.from_json(theirs.config), **more_of(ours))
    return peer, arguments | more | {"generator": generators, "output_type": "latent"}, sampler


TRAILING = {"timestep_spacing": "trailing"}


def more_of(sampler):
    return {key: getattr(sampler, key) for key in ("eta", "gamma") if hasattr(sampler, key)}


def made(model, sampler, **more):
    arguments = PROMPTS | {
        "count": 2,
        "steps": 20,
        "guidance": 5.0,
        "sampler": sampler,
        "seed": SEEDS,
    }
    return model.generate(**arguments | more, output="latents", progress=False)


def picture(model):
    """Returns an image, and a mask that is white on the right."""
    side = model.size
    mask = torch.zeros(1, 1, side, side)
    mask[..., side // 16 * 9 :] = 1
    return torch.rand(1, 3, side, side), mask


@pytest.fixture(scope="module")
def xl_pair(sdxl_folder):
    return sdxl_folder[0], sdxl.load_folder(sdxl_folder[1], base="tiny")


@pytest.mark.parametrize("name", SAMPLERS)
def test_from_noise(name, pair, differ):
    peer, arguments, sampler = alike(pair, name)
    expected = peer(**arguments).images
    assert differ(made(pair[1], sampler), expected) <= 1e-4


@pytest.mark.parametrize("name", PLAIN)
def test_from_an_image(name, pair, differ):
    image, _ = picture(pair[1])
    peer, arguments, sampler = alike(pair, name, diffusers.StableDiffusionImg2ImgPipeline)
    expected = peer(**arguments, image=pair[1].encode(image), strength=0.6).images
    assert differ(made(pair[1], sampler, image=image, strength=0.6), expected) <= 1e-4


@pytest.mark.parametrize(
    ("name", "strength"), [*((name, 0.6) for name in PLAIN), ("ddim", 1.0), ("euler", 1.0)]
)
def test_into_an_image(name, strength, pair, differ):
    image, mask = picture(pair[1])
    peer, arguments, sampler = alike(pair, name, diffusers.StableDiffusionInpaintPipeline)
    clean = pair[1].encode(image)
    arguments |= {"image": clean, "masked_image_latents": clean, "mask_image": mask}
    expected = peer(**arguments, strength=strength).images
    result = made(pair[1], sampler, image=image, mask=mask, strength=strength)
    assert differ(result, expected) <= 1e-4
    assert differ(result[..., :9], clean.expand(2, -1, -1, -1)[..., :9]) <= 1e-5


@pytest.mark.parametrize(("name", "strength"), [("ddim", 1.0), ("euler ancestral", 0.6)])
def test_into_an_image_with_an_inpainting_unet(name, strength, painting_pair, differ):
    ours = painting_pair[1]
    image, mask = picture(ours)
    peer, arguments, sampler = alike(painting_pair, name, diffusers.StableDiffusionInpaintPipeline)
    arguments |= {
        "image": ours.encode(image),
        "masked_image_latents": ours.encode(torch.where(mask > 0.5, 0.5, image)),
        "mask_image": mask,
    }
    expected = peer(**arguments, strength=strength).images
    result = made(ours, sampler, image=image, mask=mask, strength=strength)
    assert differ(result, expected) <= 1e-4


def test_rescaled_guidance(pair, differ):
    peer, arguments, sampler = alike(pair, "ddim")
    expected = peer(**arguments, guidance_rescale=0.7).images
    assert differ(made(pair[1], sampler, guidance_rescale=0.7), expected) <= 1e-4


@pytest.mark.parametrize("name", ["ddim", "euler", "2m"])
@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_zero_terminal_snr_with_other_predictions(name, prediction, pair, differ):
    schedule = {"prediction_type": prediction, "rescale_betas_zero_snr": True}
    peer, arguments, sampler = alike(pair, name, **schedule)
    assert sampler.schedule.has_zero_snr
    expected = peer(**arguments, guidance_rescale=0.7).images
    assert differ(made(pair[1], sampler, guidance_rescale=0.7), expected) <= 1e-4


@pytest.mark.parametrize("name", XL)
def test_from_noise_with_xl(name, xl_pair, differ):
    peer, arguments, sampler = alike(xl_pair, name, diffusers.StableDiffusionXLPipeline)
    assert differ(made(xl_pair[1], sampler), peer(**arguments).images) <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", XL)
def test_from_and_into_an_image_with_xl(name, xl_pair, differ):
    ours = xl_pair[1]
    image, mask = picture(ours)
    clean = ours.encode(image)
    peer, arguments, sampler = alike(xl_pair, name, diffusers.StableDiffusionXLImg2ImgPipeline)
    expected = peer(**arguments, image=clean, strength=0.6).images
    assert differ(made(ours, sampler, image=image, strength=0.6), expected) <= 1e-4
    peer, arguments, _ = alike(xl_pair, name, diffusers.StableDiffusionXLInpaintPipeline)
    arguments |= {"image": clean, "masked_image_latents": clean, "mask_image": mask}
    expected = peer(**arguments, strength=0.6).images
    result = made(ours, sampler, image=image, mask=mask, strength=0.6)
    assert differ(result, expected) <= 1e-4


@torch.no_grad()
def test_skipped_layers_of_the_text_encoder(pair, differ):
    theirs, ours = pair
    encoder, (tokens, _) = theirs.text_encoder, ours.tokenizer.windows("a red circle")
    hidden = encoder(tokens, output_hidden_states=True).hidden_states[-2]
    with ClipSkip(layers=1).on(ours):
        features = ours.read(["a red circle"], {})["text"]
    # clip_skip=1 of diffusers, which fails with transformers 5.
    assert differ(features, encoder.final_layer_norm(hidden)) <= 1e-5


@torch.no_grad()
def test_skipped_layers_of_both_text_encoders(sdxl_folder, differ):
    theirs, folder = sdxl_folder
    ours = sdxl.load_folder(folder, base="tiny")
    expected, _, pooled, _ = theirs.encode_prompt(
        "a red circle", device="cpu", do_classifier_free_guidance=False, clip_skip=1
    )
    with ClipSkip(layers=1).on(ours):
        features = ours.read(["a red circle"], {})
    assert differ(features["text"], expected) <= 1e-5
    assert differ(features["pooled"], pooled) <= 1e-5


@torch.no_grad()
def test_the_pooled_text_of_a_long_prompt_is_that_of_its_first_window(sdxl_folder, differ):
    ours = sdxl.load_folder(sdxl_folder[1], base="tiny")
    first, rest = "abc" * 10, "and (red:1.5) circles"
    features = ours.read([first, f"{first} {rest}"], {})
    assert features["text"].shape[1] == 64
    assert differ(features["pooled"][1], features["pooled"][0]) <= 1e-6


def test_the_sampler_is_read_from_the_folder(build_pipeline, tmp_path, differ):
    pipe = build_pipeline(SMALL)
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="trailing"
    )
    pipe.save_pretrained(tmp_path)
    noise = torch.randn(1, 4, 16, 16)
    expected = pipe(
        "a", num_inference_steps=4, guidance_scale=1.0, latents=noise, output_type="latent"
    ).images
    ours = sd15.load_folder(tmp_path, base="tiny")
    result = made(ours, None, prompt="a", negative_prompt="", steps=4, guidance=1.0, count=1,
                 latents=noise, seed=None)  # fmt: skip
    assert differ(result, expected) <= 1e-4
