import inspect
from concurrent.futures import ThreadPoolExecutor

import PIL.Image
import pytest
import torch
from torch import nn

from refiners_core import Adapter, Chain, Condition, Lambda, Multiply, Sum, UseContext, When
from refiners_core.errors import ConditionError, GenerationError, ModelError, PlanError
from refiners_core.models.diffusion import LatentDiffusion, NotFiniteError
from refiners_core.models.diffusion.options import GenerateOptions
from refiners_core.models.samplers import DDIM, SAMPLERS
from refiners_core.models.unet import UNetConfig


def run(model, prompt="a red circle", **arguments):
    return model.generate(
        prompt, **{"steps": 4, "seed": 7, "output": "latents", "progress": False} | arguments
    )


# --- what is made -------------------------------------------------------------------------------


def test_one_prompt_makes_an_image_and_several_a_list(model):
    image = run(model, output="pil")
    assert isinstance(image, PIL.Image.Image)
    assert image.size == (32, 32)
    for arguments in ({"count": 2}, {"seed": [7]}, {"prompt": ["a"]}, {"prompt": ["a", "b"]}):
        images = run(model, output="pil", **arguments)
        assert isinstance(images, list)
        assert (
            len(images) == 2
            if "count" in arguments or len(arguments.get("prompt", "a")) == 2
            else 1
        )


def test_a_tensor_has_pixels_in_0_1(model):
    pixels = run(model, output="tensor", size=(48, 16))
    assert pixels.shape == (1, 3, 16, 48)
    assert pixels.dtype == torch.float32
    assert 0 <= pixels.min() <= pixels.max() <= 1
    image = run(model, output="pil", size=(48, 16))
    assert image.size == (48, 16)


def test_a_seed_determines_the_image(model):
    assert run(model, seed=3).equal(run(model, seed=3))
    assert not run(model, seed=3).equal(run(model, seed=4))
    torch.manual_seed(0)
    first = run(model, seed=None)
    assert not run(model, seed=None).equal(first)
    torch.manual_seed(0)
    assert run(model, seed=None).equal(first)


def test_batching_changes_no_image(model):
    batch = run(model, ["a", "b"], count=2, seed=3, negative_prompt=["x", "y"])
    alone = [
        run(model, prompt, seed=3 + i, negative_prompt=negative)
        for i, (prompt, negative) in enumerate([("a", "x"), ("a", "x"), ("b", "y"), ("b", "y")])
    ]
    torch.testing.assert_close(batch, torch.cat(alone))
    listed = run(model, ["a", "b"], count=2, seed=[3, 4, 5, 6], negative_prompt=["x", "y"])
    assert listed.equal(batch)


def test_sequential_passes_give_the_same_images(model):
    torch.testing.assert_close(run(model, sequential=True), run(model))


def test_without_guidance_only_one_pass_runs(model):
    rows = []
    model.unet.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    run(model, guidance=1.0, steps=1)
    run(model, guidance=1.1, steps=1)
    assert rows == [1, 2]


def test_a_prompt_matters_and_so_does_a_negative_one(model):
    assert not run(model).equal(run(model, "a blue square"))
    assert not run(model).equal(run(model, negative_prompt="dull"))


def test_latents_determine_the_size(model):
    noise = torch.randn(1, 4, 4, 12)
    made = run(model, latents=noise, seed=None, count=2)
    assert made.shape == (2, 4, 4, 12)
    torch.testing.assert_close(made[0], made[1])


def test_an_initial_image_changes_more_with_more_strength(model):
    image = torch.rand(1, 3, 16, 24)
    start = model.encode(image).detach()
    far = [
        float((run(model, image=image, strength=s, steps=20) - start).norm())
        for s in (0.05, 0.5, 1)
    ]
    assert far == sorted(far)
    assert run(model, image=image).shape == (1, 4, 4, 6)
    assert run(model, image=image, size=32, count=2).shape == (2, 4, 8, 8)


def test_a_sampler_may_be_named_or_given(model):
    default = run(model)
    assert run(model, sampler="ddim").equal(default)
    assert run(model, sampler=model.sampler).equal(default)
    assert not run(model, sampler=DDIM()).equal(default)  # another schedule


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_batching_changes_no_image_with_any_sampler(model, sampler):
    batch = run(model, sampler=sampler, count=2, seed=3)
    alone = [run(model, sampler=sampler, seed=3 + i) for i in range(2)]
    # Kernels for one row and for two round differently, and samplers multiply such errors.
    torch.testing.assert_close(batch, torch.cat(alone), rtol=1e-4, atol=1e-4)
    assert run(model, sampler=sampler, count=2, seed=3).equal(batch)


def test_latents_and_a_seed_combine_for_a_stochastic_sampler(model):
    noise = torch.randn(1, 4, 8, 8)
    first = run(model, sampler="euler-ancestral", latents=noise, seed=1)
    assert run(model, sampler="euler-ancestral", latents=noise, seed=1).equal(first)
    assert not run(model, sampler="euler-ancestral", latents=noise, seed=2).equal(first)


def test_the_image_outside_a_mask_is_kept(model):
    image = torch.rand(1, 3, 32, 32)
    mask = PIL.Image.new("L", (32, 32))
    mask.paste(255, (16, 0, 32, 32))
    made, clean = run(model, image=image, mask=mask), model.encode(image)
    torch.testing.assert_close(made[..., :4], clean[..., :4])
    assert (made[..., 4:] - clean[..., 4:]).abs().min() > 0
    tensor = (torch.arange(32) >= 16).float().expand(32, 32)
    assert run(model, image=image, mask=tensor).equal(made)
    everything = run(model, image=image, mask=torch.ones(1, 32, 32), strength=1.0)
    torch.testing.assert_close(everything, run(model, size=32))


def test_an_inpainting_model_needs_an_image_and_a_mask(build_tiny):
    wide = UNetConfig(
        in_channels=9, channels=(8, 16), layers=(1, 1), depths=(1, 0), heads=(2, 2), text_width=8,
        groups=4,
    )  # fmt: skip
    model = build_tiny(unet=wide)
    image, mask = torch.rand(1, 3, 32, 32), torch.ones(1, 32, 32)
    made = run(model, image=image, mask=mask, sequential=True, count=2)
    torch.testing.assert_close(made, run(model, image=image, mask=mask, count=2))
    for arguments in ({}, {"image": image}, {"mask": mask}):
        with pytest.raises(GenerationError, match="needs an image, and a mask"):
            run(model, **arguments)


@pytest.mark.parametrize(
    ("part", "component", "step"),
    [
        ("unet.conv_in", "unet", 0),
        ("text_encoder.norm", "text_encoder", None),
        ("autoencoder.decoder.conv_in", "autoencoder", None),
    ],
)
def test_infinite_numbers_are_reported_instead_of_a_black_image(build_tiny, part, component, step):
    model = build_tiny()
    model.layer(part).weight.data.fill_(float("nan"))
    with pytest.raises(NotFiniteError, match=f"{component} returned numbers that are not") as error:
        run(model, output="tensor")
    assert (error.value.component, error.value.step) == (component, step)
    assert "lower guidance" in error.value.hint


def test_the_step_with_infinite_numbers_is_named(model):
    def overflow(module, inputs, output):
        return output * float("inf") if len(seen) == 3 else None

    seen = []
    model.unet.register_forward_hook(lambda *_: seen.append(None))
    model.unet.register_forward_hook(overflow)
    with pytest.raises(NotFiniteError, match=r"at step 2, in torch\.float32") as error:
        run(model)
    assert error.value.step == 2


def test_a_callback_is_called_at_each_step_and_may_stop(model):
    seen = []
    made = run(model, callback=lambda step, latents: seen.append((step, latents)))
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    assert seen[-1][1].equal(made)
    stopped = run(model, callback=lambda step, latents: step < 1)
    assert stopped.equal(seen[1][1])


def test_a_preview_shows_the_image_that_a_step_predicts(model):
    seen = []
    made = run(model, preview=seen.append, output="tensor")
    assert [item.step for item in seen] == [0, 1, 2, 3]
    assert [image.size for image in seen[0].images()] == [(32, 32)]
    last = run(model, preview=seen.append, output="latents", sampler="euler")
    torch.testing.assert_close(seen[-1].clean, last)  # where nothing is left to remove
    assert seen[3].pixels().shape == made.shape


def test_a_preview_decodes_only_when_asked(model):
    calls = []
    model.autoencoder.decoder.register_forward_hook(lambda *_: calls.append(None))
    run(model, preview=lambda seen: seen.images() if seen.step == 2 else None)
    assert len(calls) == 1


def test_a_bar_is_drawn_unless_it_is_silenced(model, capsys):
    run(model, progress=True)
    assert "4/4" in capsys.readouterr().err
    run(model, progress=False)
    assert capsys.readouterr() == ("", "")


def test_half_precision_stays_half(build_tiny):
    assert run(build_tiny(dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert run(build_tiny(dtype=torch.bfloat16), output="tensor").dtype == torch.float32


# --- what cannot be asked -----------------------------------------------------------------------

IMAGE = PIL.Image.new("RGB", (32, 32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": 3}, "prompt is a text or a list of texts, not 3"),
        ({"prompt": []}, "prompt is a text"),
        ({"prompt": ["a", 3]}, "prompt is a text"),
        ({"negative_prompt": None}, "negative_prompt is a text"),
        ({"negative_prompt": ["a", "b"]}, "2 negative prompts for 1 prompts"),
        ({"negative_prompt": "a", "guidance": 1}, "has no effect at guidance 1"),
        ({"count": 0}, "count is a whole number from 1 on, not 0"),
        ({"count": True}, "count is a whole number"),
        ({"steps": 0}, "steps is a whole number"),
        ({"steps": 2.5}, "steps is a whole number from 1 on, not 2.5"),
        ({"steps": 1001}, "1 to 1000 steps, not 1001"),
        ({"guidance": -1}, "guidance is a number of at least 0, not -1"),
        ({"guidance": float("nan")}, "guidance is a number"),
        ({"guidance": "high"}, "guidance is a number"),
        ({"sampler": "euler9"}, "sampler is one of ddim, euler, .*; got 'euler9'"),
        ({"sampler": 3}, "sampler is a name or a Sampler, not 3"),
        ({"seed": -1}, "a seed is a whole number"),
        ({"seed": 2**63}, "a seed is a whole number"),
        ({"seed": 1.0}, "a seed is a whole number"),
        ({"seed": [1, "2"]}, "a seed is a whole number"),
        ({"seed": [1, 2]}, "2 seeds for 1 pictures"),
        ({"latents": torch.zeros(1, 4, 8, 8)}, "got both"),
        ({"seed": None, "latents": [1]}, "float tensor of the shape"),
        ({"seed": None, "latents": torch.zeros(1, 4, 8, 8), "size": 16}, r"\(1, 4, 4, 4\)"),
        ({"seed": None, "latents": torch.zeros(3, 4, 8, 8), "count": 2}, r"\(2, 4, 8, 8\)"),
        ({"size": 30}, "multiples of 4, not 30 x 30"),
        ({"size": 0}, "size is one side or"),
        ({"size": (32, 32, 3)}, "size is one side or"),
        ({"size": "large"}, "size is one side or"),
        ({"image": 3}, "image: a value of type int is not an image"),
        ({"image": torch.zeros(2, 3, 8, 8)}, "2 images for 1 pictures"),
        ({"image": torch.zeros(1, 3, 9, 8)}, "multiples of 4, not 8 x 9"),
        ({"strength": 0.5}, "image is missing"),
        ({"image": IMAGE, "strength": 2}, "strength is a number in 0...1"),
        ({"image": IMAGE, "strength": 0.0}, "leaves none"),
        ({"mask": 3, "image": IMAGE}, "mask: a value of type int is not an image"),
        ({"mask": [IMAGE] * 2, "image": IMAGE}, "2 masks for 1 pictures"),
        ({"guidance_rescale": 2}, "guidance_rescale is a number in 0...1, not 2"),
        ({"mask": IMAGE}, "mask marks where an image may change, but image is missing"),
        ({"output": "jpg"}, "output is one of pil, tensor, latents, not 'jpg'"),
        ({"callback": 3}, "callback is a function"),
        ({"preview": 3}, "preview is a function, not 3"),
    ],
)
def test_invalid_arguments_are_refused_before_anything_runs(model, arguments, message):
    for part in (model.text_encoder, model.unet, model.autoencoder.encoder):
        part.register_forward_pre_hook(lambda *_: pytest.fail("a network ran"))
    with pytest.raises(GenerationError, match=message) as refusal:
        run(model, **arguments)
    assert refusal.value.hint


def test_a_model_without_weights_or_tokenizer_does_not_generate(build_tiny):
    with pytest.raises(ModelError, match="no weights: it is on the meta device"):
        run(build_tiny(device="meta"))
    with pytest.raises(ModelError, match="has no tokenizer"):
        run(build_tiny(tokenizer=None))


# --- conditions of adapters ---------------------------------------------------------------------


class Tint(Adapter):
    """Adds a colour to what the UNet is given: takes a number."""

    takes_condition = True
    rows = 1

    def edits(self, model):
        key = self.context_key("colour")
        branch = When(key, Chain(UseContext(key), Multiply(self.scale_key)))
        return model.slot("unet.input").wrap(lambda inner, seat: Sum(inner, branch), name="tint")

    def encode(self, value, request):
        self.requests = [*getattr(self, "requests", []), request]
        shape = (self.rows, 4, request.latent_height, request.latent_width)
        return {self.context_key("colour"): {"cond": torch.full(shape, float(value))}}


class MaskedTint(Tint):
    takes_mask = True


class Dim(Adapter):
    """Weakens the text; takes nothing."""

    def edits(self, model):
        return (
            *model.slot("unet.cross_attention").wrap(
                lambda inner, seat: Sum(inner, When(self.scale_key, Multiply(self.scale_key)))
            ),
            *model.slot("text_encoder.embedding").wrap(
                lambda inner, seat: Sum(inner, When(self.scale_key, Lambda(ones)))
            ),
        )


def ones(tokens):
    return torch.ones(*tokens.shape, 8)


def keys_by_step(model, adapter):
    """Records which of an adapter's context values there are at each step."""
    recorded = []

    def record(module, inputs, options):
        context = options["context"]
        recorded.append({key for key in list(context.keys()) if key.startswith(f"{adapter.key}.")})

    model.unet.register_forward_pre_hook(record, with_kwargs=True)
    return recorded


def test_an_adapter_encodes_its_condition_once_per_generation_and_acts(model):
    plain = run(model)
    tint = Tint().inject(model)
    tinted = run(model, conditions={tint: 2.0}, count=2, size=(16, 32))
    assert not tinted[:1].equal(plain)
    (request,) = tint.requests
    assert (request.height, request.width) == (32, 16)
    assert (request.latent_height, request.latent_width) == (8, 4)
    assert (request.count, request.branches) == (2, ("uncond", "cond"))
    assert (request.dtype, request.device) == (torch.float32, torch.device("cpu"))
    assert request.model is model
    assert request.mask is None
    assert not run(model, conditions={tint: 3.0}).equal(run(model, conditions={tint: 2.0}))


@pytest.mark.parametrize(
    "condition", [None, Condition(None), Condition(2.0, scale=0), Condition(2.0, start=0.9)]
)
def test_an_adapter_that_is_left_out_changes_no_bit(model, condition):
    plain = run(model)
    tint = Tint().inject(model)
    recorded = keys_by_step(model, tint)
    assert run(model, conditions={tint: condition}).equal(plain)
    assert recorded == [set()] * 4
    assert not hasattr(tint, "requests")
    tint.eject()
    assert run(model).equal(plain)


def test_outside_its_span_an_adapter_has_no_values_at_all(model):
    tint = Tint().inject(model)
    recorded = keys_by_step(model, tint)
    run(model, conditions={tint: Condition(2.0, start=0.25, end=0.75)})
    both = {tint.scale_key, tint.context_key("colour")}
    assert recorded == [set(), both, both, set()]


def test_a_scale_is_a_number_of_the_context(model):
    tint = Tint().inject(model)
    half = run(model, conditions={tint: Condition(2.0, scale=0.5)})
    torch.testing.assert_close(half, run(model, conditions={tint: 1.0}))


def test_an_adapter_that_takes_nothing_acts_unless_it_is_left_out(model):
    plain = run(model)
    dim = Dim().inject(model)
    dimmed = run(model)
    assert not dimmed.equal(plain)
    assert run(model, conditions={dim: Condition()}).equal(dimmed)
    assert run(model, conditions={dim: None}).equal(plain)
    assert not run(model, conditions={dim: Condition(scale=0.5)}).equal(dimmed)


def test_two_adapters_of_one_kind_are_distinguished(model):
    a, b = Tint().inject(model), Tint().inject(model)
    torch.testing.assert_close(
        run(model, conditions={a: 1.0, b: 2.0}), run(model, conditions={b: 3.0, a: None})
    )


def test_a_mask_is_passed_to_adapters_that_take_one(model):
    tint = MaskedTint().inject(model)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    run(model, conditions={tint: Condition(1.0, mask=mask)})
    passed = tint.requests[0].mask
    assert passed.shape == (1, 1, 32, 32)
    assert (passed[0, 0, 0, 0].round(), passed[0, 0, 0, -1].round()) == (1, 0)


def refused(model, **arguments):
    model.text_encoder.register_forward_pre_hook(lambda *_: pytest.fail("a network ran"))
    with pytest.raises(ConditionError) as refusal:
        run(model, **arguments)
    assert refusal.value.hint
    return str(refusal.value)


def test_an_adapter_without_its_condition_is_named_before_anything_runs(model):
    Tint(key="tint").inject(model)
    message = refused(model)
    assert "tint is worn but has no condition" in message
    assert "conditions={adapter: ...}, None to leave it out this time, or eject it" in message


def test_a_condition_for_an_adapter_that_is_not_worn_is_refused(model):
    tint = Tint(key="tint")
    assert "tint has a condition, but this model wears nothing" in refused(
        model, conditions={tint: 1.0}
    )


@pytest.mark.parametrize("conditions", [[1], {"tint": 1.0}, 3])
def test_conditions_map_adapters(model, conditions):
    assert "conditions map adapters to values" in refused(model, conditions=conditions)


def test_a_value_for_an_adapter_that_takes_none_is_refused(model):
    dim = Dim(key="dim").inject(model)
    assert "dim takes no value" in refused(model, conditions={dim: 0.5})


def test_a_mask_for_an_adapter_that_takes_none_is_refused(model):
    tint = Tint(key="tint").inject(model)
    condition = Condition(1.0, mask=torch.ones(1, 1, 8, 8))
    assert "tint acts on the whole picture" in refused(model, conditions={tint: condition})


def test_the_tensors_of_an_adapter_are_checked(model):
    tint = Tint(key="tint").inject(model)
    tint.rows = 3
    with pytest.raises(ConditionError, match=r"'tint\.colour' needs 1 or 2 rows for 'cond'"):
        run(model, conditions={tint: 1.0}, count=2)
    tint.context_key = lambda name: "text"
    with pytest.raises(ConditionError, match="writes the context key 'text', which is not its own"):
        run(model, conditions={tint: 1.0})


class Choosy(Tint):
    """Takes a number, and refuses those below 0."""

    def check(self, value, request):
        self.checked = [*getattr(self, "checked", []), (value, request.count)]
        if value < 0:
            raise ConditionError("no number below 0.", hint="Try 1.0.")


class Lonely(Dim):
    """Takes nothing, and refuses company."""

    def check(self, value, request):
        assert value is None
        if request.count > 1:
            raise ConditionError("one picture alone.", hint="Try count=1.")


def test_an_adapter_refuses_a_generation_before_any_network_runs(model):
    first, choosy = Tint(key="a").inject(model), Choosy(key="b").inject(model)
    with pytest.raises(ConditionError, match="no number below 0"):
        run(model, conditions={first: 1.0, choosy: -1.0}, count=2)
    assert choosy.checked == [(-1.0, 2)]
    assert not hasattr(first, "requests")
    run(model, conditions={first: 1.0, choosy: Condition(2.0)})
    assert choosy.checked[1:] == [(2.0, 1)]
    lonely = Lonely(key="c").inject(model)
    with pytest.raises(ConditionError, match="one picture alone"):
        run(model, conditions={first: None, choosy: None}, count=2)
    lonely.eject()


@pytest.mark.parametrize("left_out", [None, Condition(-1.0, scale=0), Condition(-1.0, end=0)])
def test_an_adapter_that_never_acts_is_not_checked(model, left_out):
    choosy = Choosy(key="b").inject(model)
    run(model, conditions={choosy: left_out})
    assert not hasattr(choosy, "checked")


def test_injecting_and_ejecting_are_refused_during_a_generation(model):
    tint = Tint().inject(model)
    with pytest.raises(PlanError, match="running"):
        run(model, conditions={tint: 1.0}, callback=lambda *_: tint.eject())
    with pytest.raises(PlanError, match="running"):
        run(model, conditions={tint: 1.0}, callback=lambda *_: Dim().inject(model))
    assert model.adapters == (tint,)
    tint.eject()


def test_a_call_leaves_nothing_behind(model):
    run(model)
    before = set(model.__dict__), set(model.denoise.__dict__)
    with pytest.raises(ZeroDivisionError):
        run(model, callback=lambda *_: 1 / 0)
    assert (set(model.__dict__), set(model.denoise.__dict__)) == before
    assert torch.is_grad_enabled()
    Dim().inject(model)
    assert isinstance(model.eject_all(), nn.Module)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": "big"}, "scale of a condition is a finite number, not 'big'"),
        ({"scale": float("inf")}, "scale of a condition"),
        ({"start": 0.5, "end": 0.2}, "start=0.5, end=0.2"),
        ({"end": 1.5}, "end=1.5"),
        ({"value": Condition(1)}, "itself a condition"),
    ],
)
def test_an_invalid_condition_is_refused(arguments, message):
    with pytest.raises(ConditionError, match=message):
        Condition(**arguments)


def test_the_overloads_of_generate_take_each_of_its_arguments():
    parameters = {*inspect.signature(LatentDiffusion.generate).parameters} - {"self"}
    named = {"prompt", "count", "seed", "output"}  # those on which the type of the result depends
    assert parameters == named | {*GenerateOptions.__annotations__}


def test_threads_may_share_a_model(model):
    tint = Tint().inject(model)

    def make(i):
        return run(model, seed=i, conditions={tint: float(i)}, size=16 + 4 * i)

    expected = [make(i) for i in range(6)]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(3):
            assert all(a.equal(b) for a, b in zip(pool.map(make, range(6)), expected, strict=True))
    tint.eject()
