"""Argument names of other libraries are refused with ours."""

import inspect

import pytest

import refiners_core
from refiners_core.argument_names import EXAMPLES, WORDS, explaining, suggestion
from refiners_core.errors import ArgumentError, GenerationError
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.testing import tiny_model

ARGUMENTS = list(inspect.signature(LatentDiffusion.generate).parameters)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("num_inference_steps", "steps=20"),
        ("guidance_scale", "guidance=7.5"),
        ("num_images_per_prompt", "count=2"),
        ("generator", "seed=7"),
        ("height", "size=(512, 512)"),
        ("mask_image", "mask=picture"),
        ("output_type", 'output="tensor"'),
        ("control_image", "conditions={adapter: Condition(picture, scale=0.8)}"),
        ("ip_adapter_image", "conditions={adapter: Condition(picture, scale=0.8)}"),
        ("stepz", "steps=20"),
        ("num_inference_step", "steps=20"),
    ],
)
def test_a_name_of_diffusers_is_refused_with_ours(model, word, hint):
    with pytest.raises(TypeError, match=f"generate does not take {word}") as caught:
        model.generate("a cat", **{word: 1})
    assert isinstance(caught.value, GenerationError)
    assert caught.value.hint == f"Write {hint}."


def test_an_unknown_name_is_refused_with_those_that_exist(model):
    with pytest.raises(ArgumentError, match="It takes prompt, negative_prompt, conditions"):
        model.generate("a cat", qqq=1)


def test_several_names_are_reported_at_once(model):
    with pytest.raises(ArgumentError, match="width or height") as caught:
        model.generate("a cat", width=1, height=1)
    assert caught.value.hint == "Write size=(512, 512)."


def test_every_name_leads_to_an_argument_that_exists():
    loading = {"dtype", "device", "offline"}
    assert {*WORDS.values()} - loading <= {*ARGUMENTS}
    assert {*WORDS.values()} <= {*EXAMPLES}
    assert not {*WORDS} & {*ARGUMENTS}


def test_names_are_known_with_hyphens_and_only_for_functions_that_take_ours():
    assert suggestion("num-inference-steps", ["steps"]) == "steps"
    assert suggestion("num_inference_steps", ["size"]) is None


def test_the_signature_and_positional_errors_of_python_stay():
    @explaining
    def f(a: int, *, steps: int = 1) -> int:
        return a + steps

    assert list(inspect.signature(f).parameters) == ["a", "steps"]
    assert f(1, steps=2) == 3
    with pytest.raises(TypeError, match="positional"):
        f(1, 2)


def test_arguments_are_checked_without_weights():
    model = tiny_model().to("meta")
    model.check("a cat", steps=2)
    for wrong in ({"sampler": "nonsense"}, {"size": 3}, {"strength": 0.3}, {"mask": object()}):
        with pytest.raises(GenerationError):
            model.check("a cat", **wrong)


def test_dir_shows_what_can_be_imported():
    assert {"Adapter", "Chain", "select"} <= {*dir(refiners_core)}
    assert not {"import_module", "Any", "TYPE_CHECKING"} & {*dir(refiners_core)}
