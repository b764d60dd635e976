"""The contract itself: a good adapter passes, and each fault is reported in words."""

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Multiply, Seat, Sum, UseContext, When, select
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.testing import (
    CONDUCT,
    LAWS,
    AdapterCase,
    Neighbour,
    check_adapter,
    tiny_model,
    tiny_sdxl,
)
from refiners_core.testing.conduct import (
    keeps_no_tensors,
    leaves_others_alone,
    leaves_settings_alone,
)
from refiners_core.testing.contract import (
    acts,
    does_not_mind_the_order,
    edits_what_it_declares,
    fails_without_a_trace,
    is_absent_when_left_out,
    is_freed_by_counting,
    is_left_behind_by_copies,
    owns_its_layers,
    patches_the_same_beside_others,
    refuses_what_makes_no_sense,
    restores_the_model,
    takes_the_dtype_of_the_base,
)


class Tint(Adapter):
    """Adds a colour to the output of the first convolution: the smallest adapter with a
    condition."""

    takes_condition: ClassVar[bool] = True

    def edits(self, model: Any):
        return model.slot("unet.conv_in").wrap(self.beside, name="tint")

    def beside(self, inner: nn.Module, seat: Seat) -> nn.Module:
        key = self.context_key("colour")
        layer = self.layer(seat, lambda: zero(nn.Conv2d(4, 8, 1)))
        return Sum(inner, When(self.scale_key, UseContext(key), layer, Multiply(self.scale_key)))

    def encode(self, value: Any, request: Any) -> dict[str, dict[str, Tensor]]:
        return {self.context_key("colour"): {"cond": torch.full((1, 4, 1, 1), float(value))}}


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    return layer


TARGETS = [("unet.conv_in", "branch")]


@pytest.mark.parametrize("law", [*LAWS, *CONDUCT], ids=lambda law: law.__name__)
def test_a_good_adapter_keeps_every_law(law):
    law(AdapterCase(Tint, condition=0.5, targets=TARGETS))


def test_a_tree_that_does_not_generate_can_be_checked_too():
    def run(tree: Chain, conditions: object) -> Tensor:
        return tree(torch.ones(2, 4, dtype=tree.dtype))

    def tree() -> Chain:
        torch.manual_seed(0)
        return Chain(nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, 4))

    check_adapter(Neighbour, model=tree, run=run, is_switched=False)


@pytest.mark.parametrize("build", [tiny_model, tiny_sdxl])
def test_a_tiny_model_is_the_same_each_time_and_leaves_the_generator_alone(build):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a, b = build(), build(base="other")
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert b.base == "other"
    assert all(len(a.slot(name)) for name in a.slots), "a slot without a place proves nothing"


# --- faulty adapters ---------------------------------------------------------------------------


class Captures(Tint):
    """Keeps the model."""

    def build(self, model: LatentDiffusion, source: Any) -> None:
        object.__setattr__(self, "model", model)


class OwnsTheBase(Tint):
    def build(self, model: LatentDiffusion, source: Any) -> None:
        self.unet = model.unet


class Writes(Tint):
    """Changes a weight of the base while wiring."""

    def beside(self, inner: nn.Module, seat: Seat) -> nn.Module:
        with torch.no_grad():
            seat.layer.weight.mul_(1.5)
        return super().beside(inner, seat)


class Hooks(Tint):
    def beside(self, inner: nn.Module, seat: Seat) -> nn.Module:
        seat.layer.register_forward_hook(lambda *_: None)
        return super().beside(inner, seat)


class AlwaysOn(Tint):
    """Ignores its scale."""

    def beside(self, inner: nn.Module, seat: Seat) -> nn.Module:
        return Chain(inner, self.layer(seat, lambda: nn.Conv2d(8, 8, 1)))


class DoesNothing(Tint):
    def beside(self, inner: nn.Module, seat: Seat) -> nn.Module:
        return Chain(inner)


class Moody(Tint):
    """Has another output each time."""

    def beside(self, inner: nn.Module, seat: Seat) -> nn.Module:
        return Chain(super().beside(inner, seat), nn.Dropout(0.5).train())


class SeesOthers(Tint):
    """Edits other places if another adapter is worn."""

    def edits(self, model: Any):
        linears = select(model).of(nn.Linear)
        is_alone = len(model.layers(nn.Linear)) == len(linears)
        return (linears if is_alone else linears.first()).wrap(lambda inner, seat: inner)


class CountsOrder(Tint):
    """Depends on the adapters worn before."""

    def beside(self, inner: nn.Module, seat: Seat) -> nn.Module:
        first = len(self.others) == 0
        return Chain(super().beside(inner, seat), nn.Threshold(0.0, 1.0 if first else 2.0))

    def edits(self, model: Any):
        self.others = model.adapters
        return super().edits(model)


class DoublePrecision(Tint):
    def beside(self, inner: nn.Module, seat: Seat) -> nn.Module:
        self.conv = nn.Conv2d(4, 8, 1).to(torch.bfloat16)
        return Sum(inner, When("never", self.conv))


class LeavesHalf(Tint):
    """Changes the model while building."""

    def build(self, model: LatentDiffusion, source: Any) -> None:
        model.unet.register_buffer("trace", torch.zeros(1))


class Injects(Tint):
    """Ejects itself before an inject."""

    def inject(self, tree: Any) -> Any:
        if self.is_worn:
            self.eject()
        return super().inject(tree)


class Clings(Tint):
    """Is kept alive by a global list."""

    everyone: ClassVar[list[Any]] = []

    def build(self, model: LatentDiffusion, source: Any) -> None:
        self.everyone.append(self)


class PatchesOthers(Tint):
    """Hooks the layers of other adapters."""

    def edits(self, model: Any):
        for other in model.adapters:
            for layer in other.modules():
                layer.register_forward_pre_hook(lambda *_: None)
        return super().edits(model)


class Keeps(Tint):
    """Keeps its last output in the tree."""

    def beside(self, inner: nn.Module, seat: Seat) -> nn.Module:
        def keep(layer: nn.Module, _: Any, y: Tensor) -> None:
            layer.last = [y]

        worn = super().beside(inner, seat)
        self.layer(seat, lambda: nn.Identity()).register_forward_hook(keep)
        return worn


class TurnsGradientsOn(Tint):
    def build(self, model: LatentDiffusion, source: Any) -> None:
        torch.set_grad_enabled(True)


class TrainsTheBase(Tint):
    def beside(self, inner: nn.Module, seat: Seat) -> nn.Module:
        seat.layer.requires_grad_(not seat.layer.weight.requires_grad)
        return super().beside(inner, seat)


class Copied(Tint):
    """Adds a layer to the base, where copies find it."""

    def beside(self, inner: nn.Module, seat: Seat) -> nn.Module:
        seat.chain.act.inplace = False
        seat.chain.act.register_module("tint", nn.Identity())
        return super().beside(inner, seat)


@pytest.mark.parametrize(
    ("law", "make", "words"),
    [
        (restores_the_model, Writes, "leaves a trace after its eject: its weights changed"),
        (restores_the_model, Hooks, "leaves a trace after its eject: its hooks changed"),
        (restores_the_model, Copied, "leaves a trace after its eject: its"),
        (acts, DoesNothing, "worn, doesnothing.* changes nothing"),
        (acts, Moody, "differ"),
        (is_absent_when_left_out, AlwaysOn, "with the condition None, .* still changes"),
        (patches_the_same_beside_others, SeesOthers, "beside another, .* edits other places"),
        (does_not_mind_the_order, CountsOrder, "the output depends on the order"),
        (owns_its_layers, OwnsTheBase, "holds 'unet' of the base as 'unet'"),
        (takes_the_dtype_of_the_base, DoublePrecision, "brings torch.bfloat16 to a model of torch"),
        (refuses_what_makes_no_sense, Injects, "is injected though it is worn"),
        (fails_without_a_trace, LeavesHalf, "when build of .* fails, the model is left patched"),
        (leaves_others_alone, PatchesOthers, "patches the layers of neighbour.*: its hooks"),
        (keeps_no_tensors, Keeps, r"the tree keeps a tensor at \['unet.*last"),
        (leaves_settings_alone, TurnsGradientsOn, "injecting .* torch: its gradient mode"),
        (leaves_settings_alone, TrainsTheBase, "turns gradients of the base on or off"),
        (is_freed_by_counting, Captures, "keeps a dropped model alive"),
        (is_freed_by_counting, Clings, "ejected and dropped, .* is kept alive"),
    ],
)
def test_each_fault_is_reported_in_words(law, make, words):
    with pytest.raises(AssertionError, match=words):
        law(AdapterCase(make, condition=0.5))


def test_a_copy_that_wears_an_adapter_is_reported(monkeypatch):
    monkeypatch.delattr(Chain, "__getstate__")
    with pytest.raises(AssertionError, match="a deepcopy of the model still wears tint"):
        is_left_behind_by_copies(AdapterCase(Tint, condition=0.5))


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ([], r"edits unet.conv_in \(branch\), which it does not declare"),
        ([("unet.conv_in", "output")], r"edits unet.conv_in \(branch\), which it does not declare"),
        ([*TARGETS, ("unet.input", "branch")], r"declares unet.input \(branch\) and edits nothing"),
    ],
)
def test_wrong_targets_are_reported(targets, words):
    with pytest.raises(AssertionError, match=words):
        edits_what_it_declares(AdapterCase(Tint, condition=0.5, targets=targets))
