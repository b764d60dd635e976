"""Samplers by name, explicit lists of levels, and how the steps of a sampler are counted."""

from dataclasses import replace

import pytest
import torch

from refiners_core import Adapter, Condition, Multiply, Sum, When
from refiners_core.errors import GenerationError
from refiners_core.models.samplers import (
    DDIM,
    LCM,
    SAMPLERS,
    Euler,
    ScheduleConfig,
    named_sampler,
)
from refiners_core.sampler_name import NAMES, SAMPLER_NAMES, SPACING_NAMES

SD15 = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
}


@pytest.mark.parametrize(
    ("text", "name", "spacing"),
    [
        ("Euler a", "euler-ancestral", None),
        ("Euler a Karras", "euler-ancestral", "karras"),
        ("DPM++ 2M Karras", "dpm++-2m", "karras"),
        ("DPM++ 2M SDE Exponential", "dpm++-2m-sde", "exponential"),
        ("DPM++ 3M SDE Automatic", "dpm++-3m-sde", None),
        ("DPM++ SDE Karras", "dpm++-sde", "karras"),
        ("DPM2 a", "dpm2-ancestral", None),
        ("DPM2", "dpm2", None),
        ("LMS Karras", "lms", "karras"),
        ("DDIM", "ddim", None),
        ("Restart", "restart", None),
        ("dpmpp_2m", "dpm++-2m", None),
        ("dpmpp_2m_sde_gpu karras", "dpm++-2m-sde", "karras"),
        ("dpmpp_sde/sgm_uniform", "dpm++-sde", "sgm-uniform"),
        ("euler_ancestral normal", "euler-ancestral", "linspace"),
        ("euler+sgm_uniform", "euler", "sgm-uniform"),
        ("dpm_2_ancestral", "dpm2-ancestral", None),
        ("uni_pc_bh2 beta", "unipc", "beta"),
        ("heun ddim_uniform", "heun", "leading"),
        ("lms simple", "lms", "trailing"),
        ("dpm++-2m-karras", "dpm++-2m", "karras"),
        ("lcm sgm_uniform", "lcm", "sgm-uniform"),
    ],
)
def test_names_of_web_interfaces_are_names_of_samplers(text, name, spacing):
    sampler = named_sampler(text, SD15)
    assert isinstance(sampler, SAMPLERS[name])
    assert sampler.schedule.spacing == spacing
    plain = named_sampler(name, SD15)
    assert replace(sampler, schedule=plain.schedule) == plain


def test_every_name_and_every_alias_is_one_sampler():
    assert tuple(SAMPLERS) == SAMPLER_NAMES
    for entry in NAMES:
        sampler = named_sampler(entry.name, SD15)
        assert type(sampler).__name__ in (SAMPLERS[entry.name].__name__, "PLMS")
        for alias in entry.aliases:
            for ending in ("", " Automatic"):
                assert named_sampler(alias.upper() + ending, SD15) == sampler
    endings = [ending for aliases in SPACING_NAMES.values() for ending in aliases]
    assert len(endings) == len(set(endings))


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("euler9", "euler"),
        ("dpm++2m-karas", "dpm++-2m-karras"),
        ("Eular a", "euler-ancestral"),
        ("UniPCMultistepSchedule", "UniPCMultistepScheduler"),
        ("dpmpp_2m_sde kerras", "dpm++-2m-sde-karras"),
        ("nonsense", "ddim"),
    ],
)
def test_a_misspelt_name_is_corrected(text, nearest):
    with pytest.raises(GenerationError, match=r"sampler is one of ddim, euler, .*; got ") as error:
        named_sampler(text)
    assert error.value.hint == f"Try sampler={nearest!r}."
    named_sampler(nearest)


def test_a_distilled_sampler_has_no_other_spacing():
    with pytest.raises(GenerationError, match="names the spacing karras, but LCM visits") as error:
        named_sampler("LCM Karras")
    assert error.value.hint == "Try sampler='lcm'."
    assert named_sampler("lcm sgm_uniform").with_steps(4).timesteps == (999, 749, 500, 250)


# --- what a file states -------------------------------------------------------------------------


def test_a_spacing_that_no_file_states_is_that_of_each_sampler():
    assert named_sampler("euler", SD15).with_steps(4).timesteps == (999, 666, 333, 0)
    assert named_sampler("ddim", SD15).with_steps(4).timesteps == (751, 501, 251, 1)
    stated = SD15 | {"timestep_spacing": "trailing"}
    for name in ("euler", "ddim"):
        assert named_sampler(name, stated).with_steps(4).timesteps == (999, 749, 499, 249)
    assert Euler(ScheduleConfig.from_json(SD15)) == named_sampler("euler", SD15)


def test_settings_that_a_live_scheduler_lists_as_defaults_are_not_stated():
    live = SD15 | {"timestep_spacing": "leading", "_use_default_values": ["timestep_spacing"]}
    assert named_sampler("euler", live) == named_sampler("euler", SD15)


def test_a_noise_schedule_is_stated_as_it_is():
    schedule = ScheduleConfig(
        prediction="v", spacing="beta", ends="leading", steps_offset=0, has_final_noise=True
    )
    assert named_sampler("euler", schedule) == Euler(schedule)
    assert named_sampler("ddim", schedule).schedule.spacing == "leading"
    karras = replace(schedule, spacing="karras")
    assert named_sampler("euler karras", schedule) == Euler(karras)


# --- explicit lists -----------------------------------------------------------------------------


def test_explicit_lists_replace_the_levels_until_the_number_of_steps_is_set():
    sampler = DDIM().with_timesteps(torch.tensor([999, 500, 20]))
    assert (sampler.timesteps, sampler.steps) == ((999, 500, 20), 3)
    assert sampler.with_strength(0.67).timesteps == (500, 20)
    assert sampler.with_steps(4) == DDIM().with_steps(4)
    assert sampler.path[-1] == DDIM().with_steps(3).path[-1]
    levels = Euler().with_sigmas([10, 1, 0]).path
    assert [round(level.sigma, 6) for level in levels] == [10, 1, 0]
    assert Euler().with_timesteps([999, 10.5]).timesteps == (999, 10.5)
    assert DDIM().with_timesteps([999, 10.5]).timesteps == (999, 10)
    assert LCM().with_timesteps([999, 749, 499, 249]).timesteps == (999, 749, 499, 249)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *(("timesteps", it) for it in ([], [1000], [9, 9], [1, 2], [5, -1], "999", 999, ["a"])),
        ("timesteps", [float("nan")]),
        ("timesteps", [True]),
        *(("sigmas", it) for it in ([1.0], [15.0, 0], [1, 1], [1, -1], [0, 0], [float("inf"), 0])),
    ],
)
def test_a_list_that_is_none_is_refused(name, values, model):
    with pytest.raises(GenerationError, match=f"^{name} is a list of numbers that") as error:
        model.check("a", **{name: values})
    assert error.value.hint.startswith(f"Try {name}=[")


def test_a_list_excludes_a_number_of_steps(model):
    with pytest.raises(GenerationError, match="steps and timesteps each set the steps") as error:
        model.check("a", steps=4, timesteps=[999, 749, 499, 249])
    assert error.value.hint == "Leave steps out."
    with pytest.raises(GenerationError, match="timesteps and sigmas each set the steps"):
        model.check("a", timesteps=[999], sigmas=[2.0, 0])
    model.check("a", timesteps=[399])
    model.check("a")


@pytest.mark.parametrize("lists", [{"timesteps": [999, 500, 20]}, {"sigmas": [9.0, 1.0, 0.2, 0]}])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_takes_explicit_lists(name, lists, model):
    made = model.generate("a", sampler=name, seed=1, output="latents", progress=False, **lists)
    assert made.isfinite().all()


# --- the steps of the caller --------------------------------------------------------------------


class Doubled(Adapter):
    """Doubles what the UNet is given."""

    def edits(self, model):
        more = When(self.scale_key, Multiply(self.scale_key))
        return model.slot("unet.input").wrap(lambda inner, seat: Sum(inner, more))


@pytest.mark.parametrize(
    ("name", "acts"),
    [
        ("euler", [0, 1, 1, 0]),
        ("heun", [0, 0, 1, 1, 1, 1, 0]),
        ("plms", [0, 0, 1, 1, 0]),
        ("pndm", [0] * 4 + [1] * 8 + [0]),
    ],
)
def test_a_span_counts_the_steps_of_the_caller(name, acts, model):
    adapter, seen = Doubled(key="doubled"), []
    with adapter.on(model):
        hook = model.unet.register_forward_pre_hook(
            lambda module, inputs, options: seen.append(
                int(adapter.scale_key in options["context"])
            ),
            with_kwargs=True,
        )
        model.generate("a", sampler=name, steps=4, seed=1, output="latents", progress=False,
                       conditions={adapter: Condition(start=0.25, end=0.75)})  # fmt: skip
    hook.remove()
    assert seen == acts


@pytest.mark.parametrize(
    ("name", "runs"),
    [("euler", 4), ("heun", 7), ("dpm2", 7), ("dpm++-sde", 7), ("plms", 5), ("pndm", 13)],
)
def test_progress_callbacks_and_previews_count_the_steps_of_the_caller(name, runs, model, capsys):
    calls, steps, previews = [], [], []
    hook = model.unet.register_forward_hook(lambda *_: calls.append(1))
    model.generate(
        "a",
        sampler=name,
        steps=4,
        seed=1,
        output="latents",
        callback=lambda step, latents: steps.append(step),
        preview=lambda preview: previews.append(preview.step),
    )
    hook.remove()
    assert (len(calls), steps, previews) == (runs, [0, 1, 2, 3], [0, 1, 2, 3])
    assert "4/4" in capsys.readouterr().err


def test_a_callback_ends_the_generation_after_a_whole_step(model):
    seen = []
    ended = model.generate(
        "a",
        sampler="heun",
        steps=4,
        seed=1,
        output="latents",
        progress=False,
        callback=lambda step, latents: seen.append(latents) or step < 1,
    )
    assert len(seen) == 2
    assert ended.equal(seen[-1])
