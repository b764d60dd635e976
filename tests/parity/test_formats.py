"""Every key of the published classes has a place in a table, and unknown ones are refused."""

import ast
import inspect
from pathlib import Path

import diffusers
import pytest
import transformers

from refiners_core.errors import ModelError, Notice
from refiners_core.models.clip.config import CLIP_IMAGE, CLIP_TEXT, ClipTextConfig
from refiners_core.models.clip.vocabulary import TOKENIZER
from refiners_core.models.pipeline_index import INDEX, check_index
from refiners_core.models.samplers import DDIM, Euler, ScheduleConfig, sampler_from_json
from refiners_core.models.samplers.table import BACKWARDS, SCHEDULER, WRITERS
from refiners_core.models.sd15 import size_of
from refiners_core.models.unet import UNetConfig
from refiners_core.models.unet.config import UNET
from refiners_core.models.vae.config import AUTOENCODER, AutoencoderConfig

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
EULER = {"_class_name": "EulerDiscreteScheduler", **NOISE}
DPM = {"_class_name": "DPMSolverMultistepScheduler", **NOISE}


def settings(kind):
    """Returns the settings of a class of diffusers, read off its source: some need libraries."""
    folder = Path(diffusers.__file__).parent / "schedulers"
    for path in folder.glob("scheduling_*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name == kind:
                (init,) = [it for it in node.body if getattr(it, "name", "") == "__init__"]
                names = [it.arg for it in init.args.args[1:]]
                values = [ast.unparse(it) for it in init.args.defaults]
                return dict(zip(names, values, strict=True))
    raise AssertionError(f"diffusers has no {kind}")


@pytest.mark.parametrize("kind", [*WRITERS, *BACKWARDS])
def test_every_setting_of_every_scheduler_is_listed(kind):
    signature = settings(kind)
    assert [key for key in signature if not SCHEDULER.has(key)] == []
    if kind in BACKWARDS:
        return
    writer = WRITERS[kind]
    assert [key for key in signature if not writer.reads(key)] == []
    known = f"{writer.keys}".split()
    assert [key for key in known if key not in signature] == []


@pytest.mark.parametrize("kind", WRITERS)
def test_an_absent_setting_has_the_default_of_its_class(kind):
    signature, writer = settings(kind), WRITERS[kind]
    assert float(signature["beta_start"]) == writer.beta_start
    assert float(signature["beta_end"]) == writer.beta_end
    assert signature["beta_schedule"].strip("'\"") == writer.betas
    assert signature.get("timestep_spacing", "'linspace'").strip("'\"") == writer.spacing
    assert signature.get("set_alpha_to_one", "True") == str(writer.is_final_clean)
    assert signature.get("clip_sample", "False") == str(writer.is_clipped)


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        (diffusers.UNet2DConditionModel, UNET),
        (diffusers.ControlNetModel, UNET),
        (diffusers.AutoencoderKL, AUTOENCODER),
        (diffusers.StableDiffusionPipeline, INDEX),
        (diffusers.StableDiffusionImg2ImgPipeline, INDEX),
        (diffusers.StableDiffusionInpaintPipeline, INDEX),
        (diffusers.StableDiffusionControlNetPipeline, INDEX),
        (diffusers.StableDiffusionXLPipeline, INDEX),
        (diffusers.StableDiffusionXLImg2ImgPipeline, INDEX),
        (diffusers.StableDiffusionXLInpaintPipeline, INDEX),
        (transformers.CLIPTextConfig, CLIP_TEXT),
        (transformers.CLIPVisionConfig, CLIP_IMAGE),
        (transformers.CLIPTokenizer, TOKENIZER),
    ],
)
def test_every_setting_of_every_class_is_listed(kind, table):
    named = inspect.signature(kind.__init__).parameters.values()
    keys = [it.name for it in named if it.kind is not it.VAR_KEYWORD and it.name != "self"]
    assert len(keys) > 5
    assert [key for key in keys if not table.has(key)] == []


@pytest.mark.parametrize("kind", [transformers.CLIPTextConfig, transformers.CLIPVisionConfig])
def test_the_defaults_of_a_library_are_read(kind):
    table = CLIP_TEXT if kind is transformers.CLIPTextConfig else CLIP_IMAGE
    assert table.unknown(kind().to_dict()) == []


@pytest.mark.parametrize("read", [UNetConfig, AutoencoderConfig, ClipTextConfig, ScheduleConfig])
def test_an_unknown_setting_is_refused_by_name(read):
    with pytest.raises(ModelError, match=r"has wobble = 3, .* Delete wobble from"):
        read.from_json({"wobble": 3, **(NOISE if read is ScheduleConfig else {})} | named(read))
    read.from_json({"_wobble": 3, "wobble": None} | named(read))


def named(read):
    return EULER if read is ScheduleConfig else {}


@pytest.mark.parametrize(
    ("read", "key", "value"),
    [
        (AutoencoderConfig, "latents_mean", [0.0] * 4),
        (AutoencoderConfig, "latents_std", [1.0] * 4),
        (AutoencoderConfig, "out_channels", 4),
        (UNetConfig, "encoder_hid_dim", 8),
        (UNetConfig, "class_embeddings_concat", True),
        (UNetConfig, "mid_block_type", None),
        (UNetConfig, "quantization_config", {"quant_method": "bitsandbytes"}),
        (ClipTextConfig, "use_attention_mask", True),
        (ClipTextConfig, "model_type", "bert"),
        (ClipTextConfig, "pruned_heads", {"0": [1]}),
    ],
)
def test_a_value_that_would_change_results_is_refused_by_name(read, key, value):
    sizes = {"block_out_channels": [8], "down_block_types": ["DownEncoderBlock2D"]}
    data = {**sizes, "up_block_types": ["UpDecoderBlock2D"]} if read is AutoencoderConfig else {}
    read.from_json(data)
    with pytest.raises(ModelError, match=f"has {key} = "):
        read.from_json({**data, key: value})


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({**EULER, "use_karras_sigmas": True, "sigma_max": 20.0}, "sigma_max"),
        ({**EULER, "use_karras_sigmas": True, "sigma_min": 0.1}, "sigma_min"),
        (
            {**EULER, "prediction_type": "v_prediction", "timestep_type": "continuous"},
            "timestep_type",
        ),
        ({**DPM, "lambda_min_clipped": -2.0}, "lambda_min_clipped"),
        ({**DPM, "variance_type": "learned_range"}, "variance_type"),
        ({**DPM, "use_dynamic_shifting": True}, "use_dynamic_shifting"),
        ({"_class_name": "LCMScheduler", **NOISE, "timestep_scaling": 5.0}, "timestep_scaling"),
    ],
)
def test_a_setting_that_would_change_the_levels_is_refused_by_name(data, key):
    with pytest.raises(ModelError, match=f"has {key} = "):
        sampler_from_json(data)


@pytest.mark.parametrize(
    "data",
    [
        {**EULER, "sigma_max": 20.0},  # of Karras' levels, which are not asked for
        {**EULER, "timestep_type": "continuous"},  # of networks that predict the velocity
        {**EULER, "clip_sample": True},  # of the scheduler that it was made from
        {**DPM, "lambda_min_clipped": -5.1},  # less than there is
        {**DPM, "lambda_min_clipped": "-inf"},
        {**EULER, "interpolation_type": "linear", "skip_prk_steps": True, "sample_max_value": 1.0},
    ],
)
def test_a_setting_without_effect_is_ignored(data):
    known = sampler_from_json({key: data[key] for key in ("_class_name", *NOISE)})
    assert sampler_from_json(data) == known


def test_the_settings_of_another_class_have_no_effect():
    data = {**EULER, "_class_name": "EulerAncestralDiscreteScheduler", "use_karras_sigmas": True}
    assert sampler_from_json(data).spacing == "linspace"
    lcm = sampler_from_json({"_class_name": "LCMScheduler"})
    assert lcm.schedule.betas == "scaled_linear"


@pytest.mark.parametrize(
    "kind", ["DPMSolverSinglestepScheduler", "SASolverScheduler", "TheirScheduler"]
)
def test_an_unknown_class_becomes_ddim_on_its_noise_with_a_notice(kind):
    with pytest.warns(Notice, match=f"{kind}, which .*DDIM takes its place") as caught:
        sampler = sampler_from_json({"_class_name": kind, **NOISE, "timestep_spacing": "trailing"})
    assert sampler == DDIM(ScheduleConfig(spacing="trailing", steps_offset=0, is_final_clean=True))
    assert len(caught) == 1


def test_ignored_settings_of_an_unknown_class_are_named():
    with pytest.warns(Notice, match="its settings wobble are ignored"):
        sampler_from_json({"_class_name": "TheirScheduler", **NOISE, "wobble": 2})


@pytest.mark.parametrize(
    "data",
    [
        {"_class_name": "EDMEulerScheduler", "sigma_max": 80.0},
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
        {"_class_name": "DDIMInverseScheduler", **NOISE},
    ],
)
def test_another_noise_schedule_is_refused_with_a_useful_hint(data):
    with pytest.raises(ModelError, match=data["_class_name"]) as error:
        sampler_from_json(data)
    assert "lies beside" not in error.value.hint


def test_a_known_class_warns_of_nothing(recwarn):
    assert type(sampler_from_json(EULER)) is Euler
    assert not recwarn.list


@pytest.mark.parametrize(
    ("sides", "wanted"),
    [(None, (512, 512)), (96, (768, 768)), ([64, 96], (768, 512)), ((64, 96), (768, 512))],
)
def test_a_size_is_one_side_or_two_or_the_released_one(sides, wanted):
    vae = AutoencoderConfig()
    assert size_of({"sample_size": sides}, vae) == wanted
    with pytest.raises(ModelError, match="sample_size = '64'"):
        size_of({"sample_size": "64"}, vae)


def test_adapter_parts_are_named_and_unknown_parts_refused():
    with pytest.warns(Notice, match="the controlnet of this .* load it as an adapter"):
        check_index({"controlnet": ["diffusers", "ControlNetModel"]}, "StableDiffusionPipeline")
    check_index({"pag": [None, None]}, "StableDiffusionPipeline")
    with pytest.raises(ModelError, match="has pag_applied_layers = "):
        check_index({"pag_applied_layers": ["mid"]}, "StableDiffusionPAGPipeline")
    with pytest.raises(ModelError, match="requires_aesthetics_score = True"):
        check_index({"requires_aesthetics_score": True}, "StableDiffusionXLImg2ImgPipeline")
