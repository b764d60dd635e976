"""Adapters say what is trained and how it begins; trained weights get gradients, and no others."""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest
import refiners
import torch
from refiners_controllora.adapter import ControlLora
from refiners_controlnet.adapter import ControlNet
from refiners_controlnet.union import UnionControlNet
from refiners_ella.adapter import Ella
from refiners_ella.connector import ConnectorConfig
from refiners_iclight.adapter import ForegroundLight
from refiners_instantid.adapter import InstantId
from refiners_ipadapter.adapter import IpAdapter, IpAdapterFull, IpAdapterPlus
from refiners_ipadapter.face_id import FaceId
from refiners_lora.adapter import Lora
from refiners_palette.adapter import PaletteAdapter
from refiners_t2iadapter.adapter import T2iAdapter
from refiners_textualinversion.adapter import TextualInversion
from refiners_train import Batch, Config
from refiners_train.engine.diffusion import Diffusion
from refiners_train.engine.learner import Learners, base_weights

from refiners_core import Adapter
from refiners_core.models.clip import ClipImageConfig
from refiners_core.models.image_prompt import ResamplerConfig
from refiners_core.models.t5 import T5Config
from refiners_core.models.unet import UNET_KEYS
from refiners_core.testing import tiny_model, tiny_sdxl, tiny_t5_tokenizer
from refiners_core.weights import published

ROWS = 3
PICTURES = torch.rand(ROWS, 3, 32, 32, generator=torch.Generator().manual_seed(0))
EYE = ClipImageConfig(
    image_size=16, patch_size=8, width=8, inner_width=16, layers=1, heads=2, projection_width=8
)
RESAMPLER = ResamplerConfig(features=8, width=16, heads=2, depth=1, inner=16, tokens=4, out_width=8)
T5 = T5Config(vocabulary=104, width=8, inner_width=8, layers=1, heads=2, head_width=4)
FACES = torch.nn.functional.normalize(torch.randn(ROWS, 512), dim=1)
POINTS = torch.rand(ROWS, 5, 2) * 24 + 4


class Case(NamedTuple):
    """An untrained adapter, and the conditions of a batch."""

    make: Callable[[], Adapter]
    conditions: dict[str, Any] = {}  # noqa: RUF012
    text: str = "a cat"


CASES = {
    **{
        method: Case(lambda method=method: Lora(rank=2, method=method))
        for method in ("lora", "dora", "loha", "lokr", "oft", "ia3", "full")
    },
    "lora of convolutions": Case(lambda: Lora(rank=2, where="unet.conv")),
    "lora of the text encoder": Case(lambda: Lora(rank=2, where="text_encoder.linear")),
    "controlnet": Case(lambda: ControlNet(channels=(4, 8, 8, 8)[:3]), {"": PICTURES}),
    "union": Case(
        lambda: UnionControlNet(channels=(4, 8, 8)), {"canny": PICTURES, "depth": PICTURES}
    ),
    "control-lora": Case(lambda: ControlLora(rank=2, channels=(4, 8, 8)), {"": PICTURES}),
    "t2i": Case(lambda: T2iAdapter(), {"": PICTURES}),
    "ip-adapter": Case(lambda: IpAdapter(encoder=EYE), {"": PICTURES}),
    "ip-adapter-plus": Case(
        lambda: IpAdapterPlus(encoder=EYE, resampler=RESAMPLER), {"picture": PICTURES}
    ),
    "ip-adapter-full": Case(lambda: IpAdapterFull(encoder=EYE), {"": PICTURES}),
    "faceid": Case(lambda: FaceId(rank=2), {"": FACES}),
    "instantid": Case(
        lambda: InstantId(
            channels=(4, 8, 8),
            resampler=ResamplerConfig(
                features=512, width=16, heads=2, depth=1, inner=16, tokens=4, out_width=8
            ),
        ),
        {"face": 20 * FACES, "keypoints": POINTS},
    ),
    "palette": Case(lambda: PaletteAdapter(), {"": [["red", "white"]] * ROWS}),
    "textual inversion": Case(lambda: TextualInversion(word="<it>", initial="c"), text="a <it>"),
    "ella": Case(
        lambda: Ella(
            encoder=T5Config(
                vocabulary=104, width=8, inner_width=8, layers=1, heads=2, head_width=4
            ),
            connector=ConnectorConfig(8, 8, tokens=2, layers=1, heads=2, waves=4),
            tokenizer=tiny_t5_tokenizer(),
        )
    ),
    "ic-light": Case(lambda: ForegroundLight(), {"": PICTURES}),
}


def config(**train: Any) -> Config:
    table = {
        "output": "unused",
        "base": {"model": "tiny"},
        "adapter": {"name": "unused"},
        "data": {"source": "unused:unused"},
        "train": {"steps": 2, "batch": ROWS, **train},
    }
    return msgspec.convert(table, Config)


def objective(make: Callable[[], Adapter], model: Any, **train: Any) -> tuple[Diffusion, Learners]:
    base = base_weights(model)
    adapter = make().inject(model)
    adapter.start(model)
    return Diffusion(model, adapter, config(**train)), Learners(base, adapter)


def loss(lesson: Diffusion, batch: Batch, seed: int = 0) -> torch.Tensor:
    drawn = lesson.draw(batch, len(batch), torch.Generator().manual_seed(seed))
    return (lesson.sums(batch, drawn) * lesson.weights).sum() / len(batch)


@pytest.mark.parametrize("name", CASES)
def test_each_trained_weight_gets_a_gradient_and_no_other(name):
    torch.manual_seed(0)
    case = CASES[name]
    lesson, learners = objective(case.make, tiny_model())
    batch = Batch([case.text] * ROWS, PICTURES, conditions=case.conditions)
    moved = torch.optim.SGD(learners.weights, 0.3)
    for seed in range(3):  # a ControlNet is behind two layers of zeros, a LoRA behind one
        moved.zero_grad()
        loss(lesson, batch, seed).backward()
        assert any(w.grad is not None and w.grad.abs().sum() > 0 for w in learners.weights)
        if seed < 2:
            moved.step()
    for weight_name, weight in zip(learners.names, learners.weights, strict=True):
        assert weight.grad is not None, weight_name
        assert weight.grad.isfinite().all(), weight_name
        assert weight.grad.abs().sum() > 0, weight_name
    assert all(weight.grad is None for weight in learners.frozen.values())


@pytest.mark.parametrize(
    "name", [name for name in CASES if name not in ("t2i", "ella", "textual inversion")]
)
def test_what_begins_changes_nothing_yet(name):
    torch.manual_seed(0)
    case = CASES[name]
    model = tiny_model()
    lesson, _ = objective(case.make, model)
    batch = Batch([case.text] * ROWS, PICTURES, conditions=case.conditions)
    with torch.no_grad():
        begun = loss(lesson, batch)
        lesson.reading.adapter.eject()
        lesson.reading.adapter.takes_condition = False  # type: ignore[misc]
        bare = loss(lesson, batch)
    torch.testing.assert_close(begun, bare)


def test_a_controlnet_copies_the_encoder_of_the_unet():
    model = tiny_model()
    control = ControlNet(channels=(4, 8, 8)).inject(model)
    control.start(model)
    copied, base = control.published(), published(model.unet, UNET_KEYS)
    shared = copied.keys() & base.keys()
    assert len(shared) > 30
    assert all(torch.equal(copied[name], base[name]) for name in shared)


def test_the_vectors_of_a_word_begin_at_those_of_another():
    model = tiny_model()
    word = TextualInversion(word="<it>", initial="c", vectors=2).inject(model)
    word.start(model)
    (token,) = model.tokenizer.tokens("c")
    table = next(iter(model.slot("text_encoder.embedding"))).layer.weight
    for vector in word.published()["<it>"]:
        assert torch.equal(vector, table[token])


def test_an_installed_adapter_begins_with_its_encoder_and_its_sizes():
    model = refiners.load_model("playground")
    trained = refiners.load_adapter("ip-adapter", model).eject()
    begun = refiners.load_untrained("ip-adapter", model)
    for ours, theirs in zip(begun.encoder.parameters(), trained.encoder.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    ours, theirs = begun.published(), trained.published()
    assert {name: value.shape for name, value in ours.items()} == {
        name: value.shape for name, value in theirs.items()
    }
    assert all(ours[name].abs().max() == 0 for name in ours if name.endswith("to_v_ip.weight"))
    learned = {id(weight) for part in begun.learners() for weight in part.parameters()}
    assert not learned & {id(weight) for weight in begun.encoder.parameters()}


def test_an_option_that_an_adapter_does_not_take_is_refused():
    with pytest.raises(refiners.OptionError, match="rank"):
        refiners.load_untrained("lora", refiners.load_model("playground"), ranks=4)


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("lora", "ip-adapter") else pytest.param(name, marks=pytest.mark.slow)
        for name in CASES
    ],
)
def test_half_a_base_is_trained_in_float32(name):
    torch.manual_seed(0)
    case = CASES[name]
    lesson, learners = objective(case.make, tiny_model().bfloat16())
    assert {weight.dtype for weight in learners.weights} == {torch.float32}
    batch = Batch([case.text] * ROWS, PICTURES, conditions=case.conditions)
    with torch.autocast("cpu", torch.bfloat16):
        loss(lesson, batch).backward()
    assert all(w.grad is not None and w.grad.dtype == torch.float32 for w in learners.weights)


def test_sdxl_trains():
    torch.manual_seed(0)
    lesson, learners = objective(lambda: Lora(rank=2), tiny_sdxl())
    loss(lesson, Batch(["a cat"] * ROWS, PICTURES)).backward()
    assert all(weight.grad is not None for weight in learners.weights)
