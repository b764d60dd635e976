"""Reference-only and reference AdaIN keep the contract of adapters, alone and beside others."""

import tomllib
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
import torch
from refiners_reference.adapter import Reference
from refiners_reference.attention import ReferenceOnly
from refiners_reference.statistic import ReferenceAdain
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Condition, Context, Edit, Layer, Seat
from refiners_core.errors import AdapterError, ConditionError
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.unet import UNetConfig
from refiners_core.testing import LAWS, AdapterCase, tiny_model, tiny_sdxl

KINDS: dict[str, type[Reference]] = {
    "reference-only": ReferenceOnly,
    "reference-adain": ReferenceAdain,
}
PICTURE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(4))
WEIGHTED = {"reference-adain": {"norm_weight": 2.0}}


def make(name: str, **options: Any) -> Reference:
    return KINDS[name](name=name, **WEIGHTED.get(name, {}), **options)


def targets(name: str) -> list[tuple[str, str]]:
    manifest = tomllib.loads((files("refiners_reference") / "adapter.toml").read_text())
    (variant,) = manifest["adapter"][name]["variant"]
    return [(target["slot"], target["stage"]) for target in variant["targets"]]


def uneven() -> LatentDiffusion:
    """Returns a model whose lowest level has no attention, as those of Stable Diffusion 1.5."""
    config = UNetConfig(
        channels=(8, 16), layers=(1, 1), depths=(1, 0), heads=(2, 2), text_width=8, groups=4
    )
    return tiny_model(unet=config)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", KINDS)
def test_it_keeps_the_contract(name: str, law: Callable[[AdapterCase], None]):
    case = AdapterCase(lambda: make(name), uneven, condition=PICTURE, targets=targets(name))
    law(case)


def latents(model: LatentDiffusion, conditions: Any = None, **options: Any) -> Tensor:
    defaults = {"steps": 3, "guidance": 3.0, "seed": 7, "output": "latents", "progress": False}
    return model.generate(
        "a red circle", conditions=conditions, **{"count": 2, **defaults, **options}
    )


@pytest.fixture(scope="module")
def bare() -> LatentDiffusion:
    return tiny_model()


@pytest.fixture
def model(bare: LatentDiffusion):
    yield bare
    bare.eject_all()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("options", [{}, {"guidance": 1.0}, {"sampler": "heun"}])
def test_sequential_branches_make_the_same_pictures(model, name, options):
    conditions = {make(name).inject(model): PICTURE}
    together = latents(model, conditions, **options)
    assert torch.allclose(
        latents(model, conditions, sequential=True, **options), together, atol=1e-4
    )


@pytest.mark.parametrize("name", KINDS)
def test_each_picture_may_have_a_reference(model, name):
    adapter = make(name).inject(model)
    others = torch.cat([PICTURE, 1 - PICTURE])
    both = latents(model, {adapter: others})
    noise = torch.stack(
        [torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(7 + i)) for i in range(2)]
    )
    for i in range(2):
        alone = latents(model, {adapter: others[i]}, count=1, seed=None, latents=noise[i : i + 1])
        assert torch.allclose(both[i], alone[0], atol=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_style_fidelity_keeps_the_pass_without_a_prompt(model, name):
    """At full fidelity that pass is the plain one; without it, it changes like the other."""
    predictions: dict[float, Tensor] = {}
    handle = model.unet.register_forward_hook(lambda *call: predictions.update(last=call[-1]))
    plain = (latents(model, steps=1), predictions["last"])[1].chunk(2)
    for fidelity in (0.0, 0.5, 1.0):
        with make(name, style_fidelity=fidelity).on(model) as adapter:
            latents(model, {adapter: PICTURE}, steps=1)
        predictions[fidelity] = predictions["last"]
    handle.remove()
    uncond = {fidelity: predictions[fidelity].chunk(2)[0] for fidelity in (0.0, 0.5, 1.0)}
    assert torch.equal(uncond[1.0], plain[0])
    assert not torch.allclose(uncond[0.5], uncond[1.0], atol=1e-3)
    assert not torch.allclose(uncond[0.5], uncond[0.0], atol=1e-3)
    for fidelity in uncond:
        assert torch.equal(predictions[fidelity].chunk(2)[1], predictions[0.0].chunk(2)[1])


@pytest.mark.parametrize("make_model", [tiny_model, tiny_sdxl])
@pytest.mark.parametrize(
    ("options", "count"),
    [({"attention_weight": 0.0}, 0), ({"attention_weight": 0.5}, None), ({}, -1)],
)
def test_the_weight_chooses_the_widest_attentions(make_model, options, count):
    model = make_model()
    attention = model.slot("unet.self_attention.attend")
    edits = list(ReferenceOnly(**options).edits(model))
    seats = [seat for edit in edits for seat in edit.seats if seat.path != "denoise.predict"]
    if count is None:
        widths = sorted((seat.chain.width for seat in attention), reverse=True)
        assert len(seats) == -(-len(attention) // 2)
        assert sorted((seat.chain.width for seat in seats), reverse=True) == widths[: len(seats)]
    else:
        assert len(seats) == (count or 0) % (len(attention) + 1)


def test_the_norm_weight_chooses_levels_from_the_inside_outwards():
    model = tiny_sdxl()
    chosen: dict[float, list[str]] = {}
    for weight in (0.0, 1.0, 2.0):
        edits = list(ReferenceAdain(norm_weight=weight).edits(model))
        paths = [seat.path for edit in edits for seat in edit.seats]
        chosen[weight] = sorted(path for path in paths if path != "denoise.predict")
    lowest = ["unet.mid.output", "unet.up.0.transformer_0", "unet.up.0.transformer_1"]
    assert chosen[0.0] == lowest
    assert chosen[1.0] == sorted(
        [*lowest, "unet.down.2.transformer_0", "unet.up.1.transformer_0", "unet.up.1.transformer_1"]
    )
    outer = ["unet.down.0.resnet_0", "unet.down.1.transformer_0", "unet.up.2.resnet_0"]
    assert {*outer} < {*chosen[2.0]}


class Masked(Adapter):
    """Adds a mask that hides nothing to every self-attention."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__(key="z-outside")
        self.mask = mask

    def edits(self, model: LatentDiffusion) -> tuple[Edit, ...]:
        def masked(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(AddMask(self.mask), inner)

        return model.slot("unet.self_attention.attend").wrap(masked, stage="inputs")


class AddMask(Layer):
    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def run(self, context: Context, *inputs: Tensor) -> tuple[Tensor, ...]:
        return (*inputs, self.mask.expand(-1, -1, inputs[1].shape[1]))


@pytest.mark.parametrize("mask", [torch.zeros(1, 1, 1), torch.ones(4, 1, 1, dtype=torch.bool)])
def test_the_mask_of_an_outer_adapter_is_kept(model, mask):
    conditions = {ReferenceOnly(key="reference").inject(model): PICTURE}
    expected = latents(model, conditions)
    Masked(mask).inject(model)
    assert torch.allclose(latents(model, conditions), expected, atol=1e-5)


class Shift(Adapter):
    """Adds its picture's mean to the input of the UNet, as a control adapter would."""

    takes_condition = True

    def edits(self, model: LatentDiffusion) -> tuple[Edit, ...]:
        def shifted(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(inner, AddShift(self))

        return model.slot("unet.input").wrap(shifted, stage="output")

    def encode(self, value: Tensor, request: Any) -> dict[str, dict[str, Tensor]]:
        return {self.context_key("shift"): {"cond": value.mean((1, 2, 3), keepdim=True)}}


class AddShift(Layer):
    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        self.shift, self.scale_key = adapter.context_key("shift"), adapter.scale_key

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        scale = context.get(self.scale_key)
        return inputs[0] if scale is None else inputs[0] + scale * context[self.shift]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("scale", [1.0, {"unet.input": 1.0}])
@pytest.mark.parametrize("is_sequential", [False, True])
def test_other_conditions_do_not_act_on_the_reference(model, name, scale, is_sequential):
    adapter, other = make(name).inject(model), Shift(key="shift").inject(model)
    seen: list[Tensor] = []
    handle = model.unet.conv_in.register_forward_pre_hook(lambda _, call: seen.append(call[0]))
    conditions = {adapter: PICTURE, other: Condition(PICTURE + 3, scale=scale)}
    latents(model, conditions, steps=1, sequential=is_sequential)
    with_other = list(seen)
    seen.clear()
    latents(model, {adapter: PICTURE, other: None}, steps=1, sequential=is_sequential)
    handle.remove()
    half = len(seen) // 2
    assert half == (2 if is_sequential else 1)
    for i, (mine, plain) in enumerate(zip(with_other, seen, strict=True)):
        assert torch.equal(mine, plain) == (i < half)


def test_two_references_each_have_their_pass(model):
    first, second = (ReferenceOnly(key=key).inject(model) for key in ("a", "b"))
    both = latents(model, {first: PICTURE, second: 1 - PICTURE})
    alone = latents(model, {first: PICTURE, second: None})
    assert not torch.allclose(both, alone, atol=1e-3)
    second.eject()
    assert torch.equal(latents(model, {first: PICTURE}), alone)


@pytest.mark.parametrize("name", KINDS)
def test_the_scale_may_differ_by_place_step_and_picture(model, name):
    adapter = make(name).inject(model)
    plain, whole = latents(model, {adapter: None}), latents(model, {adapter: PICTURE})
    by_picture = latents(model, {adapter: Condition(PICTURE, scale=[0.0, 1.0])})
    assert torch.equal(by_picture[0], plain[0])
    assert torch.equal(by_picture[1], whole[1])
    by_place = latents(model, {adapter: Condition(PICTURE, scale={"unet": 1.0})})
    assert torch.equal(by_place, whole)
    in_the_middle = latents(model, {adapter: Condition(PICTURE, scale={"unet.mid": 1.0})})
    assert not torch.allclose(in_the_middle, whole, atol=1e-3)
    assert not torch.allclose(in_the_middle, plain, atol=1e-5)
    late = latents(model, {adapter: Condition(PICTURE, start=0.5)})
    assert not torch.allclose(late, whole, atol=1e-3)


@pytest.mark.slow
def test_compiled_blocks_make_the_same_pictures():
    config = UNetConfig(
        **{"channels": (8,), "layers": (1,), "depths": (0,), "mid_depth": 1, "heads": (2,)},
        text_width=8,
        groups=4,
    )
    model = tiny_model(unet=config)
    conditions = {make("reference-only").inject(model): PICTURE}
    options: dict[str, Any] = {"steps": 1, "guidance": 1.0, "count": 1}
    eager = latents(model, conditions, **options)
    torch.compiler.reset()
    model.compile(backend="eager")
    assert torch.allclose(latents(model, conditions, **options), eager, atol=1e-5)
    assert not torch.allclose(
        eager, latents(model, dict.fromkeys(conditions), **options), atol=1e-3
    )


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        (ReferenceOnly, "style_fidelity", 1.1),
        (ReferenceOnly, "attention_weight", float("nan")),
        (ReferenceAdain, "norm_weight", True),
        (ReferenceAdain, "style_fidelity", -0.5),
    ],
)
def test_a_knob_is_a_number_in_its_range(kind: type[Reference], option: str, value: Any):
    with pytest.raises(
        AdapterError, match=f"{option} is a number in 0...{'2' if option[0] == 'n' else '1'}"
    ):
        kind(**{option: value})


def test_what_is_not_a_picture_is_refused_before_any_network_runs(model):
    adapter = make("reference-only").inject(model)
    handle = model.text_encoder.register_forward_pre_hook(lambda *_: pytest.fail("a network runs"))
    with pytest.raises(ConditionError, match="of type str is not an image"):
        latents(model, {adapter: "me.png"})
    handle.remove()


@pytest.mark.parametrize("value", [[[PICTURE, PICTURE]], [[PICTURE], [PICTURE]]])
def test_references_in_nested_lists_are_counted_like_those_in_one_list(model, value):
    adapter = make("reference-only").inject(model)
    with pytest.raises(ConditionError, match=r"is given 2 values for 1 picture.*count=2"):
        latents(model, {adapter: value}, count=1)
