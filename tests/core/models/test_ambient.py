"""Settings of torch around a generation change nothing, nor does moving one component."""

import ast
from pathlib import Path

import pytest
import torch
from torch import nn

import refiners_core
from refiners_core import Adapter, Chain, Sum
from refiners_core.errors import GenerationError, ModelError, Notice
from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.samplers import DDIM, DPM2M, Euler, ScheduleConfig

MAKERS = {"tensor", "zeros", "ones", "full", "arange", "linspace", "randn", "rand", "randint"}


def made(model, **more):
    arguments = {"steps": 3, "seed": 1, "output": "latents", "progress": False, **more}
    return model.generate("a (red:1.2) circle", **arguments)


@pytest.fixture
def default_dtype():
    yield torch.set_default_dtype
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_default_dtype_changes_nothing(dtype, build_tiny, default_dtype):
    right, alphas = made(build_tiny()), ScheduleConfig().alphas
    karras = DPM2M(ScheduleConfig(spacing="karras")).with_steps(5).path
    model = build_tiny()
    default_dtype(dtype)
    assert made(model).equal(right)
    assert ScheduleConfig().alphas.equal(alphas)
    assert DPM2M(ScheduleConfig(spacing="karras")).with_steps(5).path == karras


def test_the_default_device_changes_nothing(build_tiny):
    right, model = made(build_tiny(), output="tensor"), build_tiny()
    with torch.device("meta"):
        assert made(model, output="tensor").equal(right)


@pytest.mark.parametrize(
    "around",
    [
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        torch.inference_mode,
        torch.enable_grad,
        lambda: torch.autograd.set_detect_anomaly(True, check_nan=False),
    ],
)
def test_modes_of_torch_change_nothing(around, build_tiny):
    model = build_tiny()
    right = made(model)
    with around():
        assert made(model).equal(right)
    assert made(model).equal(right)


def is_call(node):
    return isinstance(node, ast.Call)


def test_every_created_tensor_names_its_device_and_dtype():
    """Or it would be where, and of what, torch is set to."""
    root = Path(refiners_core.__file__).parent
    lacking = []
    for path in [*root.rglob("*.py")]:
        if "testing" in path.parts:
            continue
        calls = [it for it in ast.walk(ast.parse(path.read_text("utf-8"))) if is_call(it)]
        # Parameters are where, and of what, torch is set to while a model is built.
        built = [it for it in calls if ast.unparse(it.func) == "nn.Parameter"]
        within = {id(part) for call in built for part in ast.walk(call)}
        for call in calls:
            owner, _, name = ast.unparse(call.func).rpartition(".")
            is_maker = owner == "torch" and name in MAKERS and id(call) not in within
            if is_maker and "device" not in {it.arg for it in call.keywords}:
                lacking.append(f"{path.name}:{call.lineno}")
    assert lacking == []


class Seeing(Adapter):
    """Has an encoder outside the tree, as image encoders are."""

    takes_condition = True

    def build(self, model, source):
        self.encoder = nn.Linear(3, 4).to(model.unet.dtype)

    def edits(self, model):
        return model.slot("unet.conv_in").wrap(lambda inner, seat: Sum(inner))

    def encode(self, value, request):
        seen = self.encoder(torch.ones(1, 3).to(request.device, request.dtype))
        return {self.context_key("seen"): {"cond": seen}}


def test_encoders_of_adapters_follow_a_component_that_is_moved_alone(model):
    model.half()
    adapter = Seeing().inject(model)
    assert torch.isfinite(made(model, conditions={adapter: 1})).all()
    model.unet.to(dtype=torch.float32)
    assert made(model, conditions={adapter: 1}).dtype == torch.float32
    assert adapter.encoder.weight.dtype == torch.float32


@pytest.mark.parametrize("component", ["text_encoder", "autoencoder"])
def test_another_component_may_compute_in_another_type(component, model):
    picture = torch.rand(3, 32, 32)
    right = made(model, image=picture, strength=1.0, output="tensor")
    model.layer(component, Chain).to(dtype=torch.float64)
    pixels_made = made(model, image=picture, strength=1.0, output="tensor")
    torch.testing.assert_close(pixels_made, right, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("component", ["unet", "text_encoder", "autoencoder"])
def test_weights_in_float8_are_refused_before_anything_runs(component, model):
    model.layer(component, Chain).to(dtype=torch.float8_e4m3fn)
    with pytest.raises(
        ModelError, match=f"{component} has weights of torch.float8_e4m3fn"
    ) as error:
        made(model)
    assert f"model.{component}.to(dtype=torch.bfloat16)" in error.value.hint


@pytest.mark.parametrize("text", ["a cat \ud83d", "\udce9", "a \udc00 b"])
def test_half_a_character_is_refused(text, model, vocabulary):
    place = next(i for i, sign in enumerate(text) if "\ud800" <= sign <= "\udfff")
    for arguments in ({}, {"negative_prompt": text}):
        with pytest.raises(GenerationError, match=f"half a character, .* at position {place}"):
            model.generate(text if not arguments else "a", steps=1, **arguments)
    with pytest.raises(ModelError, match="half a character"):
        ClipTokenizer(vocabulary, [], length=16).windows(text)
    text.encode("utf-8", "replace").decode()  # as the hint says


# --- the beginning of a generation -------------------------------------------------------------


@pytest.mark.parametrize("kind", [DDIM, Euler])
@pytest.mark.parametrize("spacing", ["leading", "linspace"])
def test_one_step_that_begins_far_from_noise_is_refused(kind, spacing, model):
    sampler = kind(ScheduleConfig(spacing=spacing))
    with pytest.raises(
        GenerationError, match=r"1 step begins at training step [01], where"
    ) as error:
        made(model, steps=1, sampler=sampler)
    assert 'steps=4, or sampler="dpm++-2m"' in error.value.hint
    made(model, steps=4, sampler=sampler)
    made(model, steps=1, sampler=kind(ScheduleConfig(spacing="trailing")))


def test_few_steps_that_begin_below_pure_noise_warn(model, recwarn):
    made(model, steps=8, sampler=DDIM())
    made(model, steps=2, sampler=DDIM(ScheduleConfig(spacing="trailing")))
    made(model, steps=3, sampler=DDIM(), image=torch.rand(3, 32, 32))
    assert not [it for it in recwarn.list if it.category is Notice]
    with pytest.warns(
        Notice, match="3 steps begin at training step 667, where latents were trained with 94.6%"
    ):
        made(model, steps=3, sampler=DDIM())


@pytest.mark.parametrize("steps", [*range(2, 60), 100, 155, 999, 1000])
def test_linspace_reaches_from_the_last_training_step_to_the_first(steps):
    places = Euler(ScheduleConfig(spacing="linspace")).with_steps(steps).timesteps
    assert (places[0], places[-1], len(places)) == (999, 0, steps)
