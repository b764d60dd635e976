"""Bottleneck adapters and their fusion keep the contract, in every form."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from refiners_bottleneck.adapter import Bottleneck
from refiners_bottleneck.fusion import Fusion, fuse
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Condition, Multiply, Sum, When, compose
from refiners_core.models.decoder import CACHE, TOKEN_MASK, Cache, LanguageModel
from refiners_core.testing import LAWS, AdapterCase, tiny_language_model

FORMS: Mapping[str, Mapping[str, Any]] = {
    "seq_bn": {"config": "seq_bn", "reduction_factor": 4},
    "double_seq_bn": {"config": "double_seq_bn", "reduction_factor": 4},
    "par_bn": {"config": "par_bn"},
    "compacter": {"config": "compacter", "reduction_factor": 4},
    "adapter_plus": {"config": "adapter_plus", "reduction_factor": 4},
}
IN, OUT = "decoder.{}.input", "decoder.{}.output"
TARGETS: Mapping[str, list[tuple[str, str]]] = {
    "double_seq_bn": [(OUT.format(x), "output") for x in ("attention", "feed_forward")],
    "compacter": [(OUT.format(x), "output") for x in ("attention", "feed_forward")],
}
BEHIND_FEED_FORWARD = [
    (IN.format("feed_forward"), "inputs"),
    (OUT.format("feed_forward"), "output"),
]


class LowRank(Adapter):
    """A plain low-rank adapter of all linear layers."""

    def edits(self, model: Any) -> Any:
        def beside(inner: nn.Module, seat: Any) -> nn.Module:
            wide = (seat.layer.in_features, seat.layer.out_features)
            change = self.layer(
                seat, lambda: Chain(nn.Linear(wide[0], 2), nn.Linear(2, wide[1], bias=False))
            )
            return Sum(inner, When(self.scale_key, change, Multiply(self.scale_key)))

        return model.slot("decoder.linear").wrap(beside, name="low")


def small_model() -> LanguageModel:
    return tiny_language_model(ends=())


def scores(model: LanguageModel, conditions: Mapping[Adapter, Any]) -> Tensor:
    results = model.generate(
        ["Once upon", "I"], conditions=conditions, max_new_tokens=3, output="scores"
    )
    return torch.cat([result.log_probabilities for result in results])


def fused() -> Fusion:
    return fuse(Bottleneck(reduction_factor=4), Bottleneck(reduction_factor=2))


def random(adapter: Adapter, model: LanguageModel, seed: int = 2) -> Any:
    """Returns an adapter with random weights for a model, not worn."""
    adapter.inject(model).eject()
    noise = torch.Generator().manual_seed(seed)
    for weight in adapter.parameters():
        weight.data = torch.randn(weight.shape, generator=noise) * 0.3
    return adapter


MAKES: Mapping[str, Callable[[], Adapter]] = {
    **{name: lambda form=form: Bottleneck(**form) for name, form in FORMS.items()},
    "fusion": fused,
}


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("law", LAWS)
def test_each_form_keeps_the_contract(law: Callable[[AdapterCase], None], name: str):
    targets = TARGETS.get(name, BEHIND_FEED_FORWARD)
    law(AdapterCase(MAKES[name], small_model, targets=targets, run=scores, beside=LowRank))


@pytest.mark.parametrize("name", MAKES)
def test_rows_have_scales_of_their_own_and_off_rows_are_bare(name: str):
    model = small_model()
    adapter = random(MAKES[name](), model)
    prompts = ["Once upon", "I", "I"]
    options: dict[str, Any] = {"max_new_tokens": 4, "output": "scores"}
    bare = model.generate(prompts, **options)
    adapter.inject(model)
    mixed = model.generate(
        prompts, conditions={adapter: Condition(scale=[1.0, 0.0, 0.5])}, **options
    )
    assert torch.equal(mixed[1].log_probabilities, bare[1].log_probabilities)
    for row, scale in ((0, 1.0), (2, 0.5)):
        alone = model.generate(
            prompts[row], conditions={adapter: Condition(scale=scale)}, **options
        )
        assert not torch.allclose(alone.log_probabilities, bare[row].log_probabilities)
        torch.testing.assert_close(
            mixed[row].log_probabilities, alone.log_probabilities, atol=1e-5, rtol=1e-5
        )


@torch.no_grad()
@pytest.mark.parametrize("name", MAKES)
def test_decoding_with_a_cache_is_decoding_without(name: str):
    model = small_model()
    adapter = random(MAKES[name](), model).inject(model)
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    scale, cache = torch.tensor(1.0), Cache(capacity=8)
    parts = [
        model.decoder(part, context={CACHE: cache, adapter.scale_key: scale})
        for part in (ids[:, :3], ids[:, 3:4], ids[:, 4:])
    ]
    whole = model.decoder(ids, context={adapter.scale_key: scale})
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_gate_leaves_padding_out():
    model = small_model()
    form = {"mh_adapter": True, "output_adapter": True, "use_gating": True, "reduction_factor": 2}
    adapter = random(Bottleneck(config=form), model).inject(model)
    context = {adapter.scale_key: torch.tensor(1.0)}
    ids = torch.tensor([[9, 9, 1, 2, 3]])
    mask = torch.tensor([[False, False, True, True, True]])
    padded = model.decoder(ids, context={**context, TOKEN_MASK: mask})[:, 2:]
    alone = model.decoder(ids[:, 2:], context=context)
    torch.testing.assert_close(padded, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("second", ["seq_bn", "par_bn", "fusion", "low rank"])
def test_pairs_differ_from_each_alone_in_any_order(second: str):
    model = small_model()
    makes = {**MAKES, "low rank": LowRank}
    first, other = random(MAKES["seq_bn"](), model), random(makes[second](), model, 7)
    outcomes = [scores(model, {})]
    for worn in ((first,), (other,), (first, other)):
        for adapter in worn:
            adapter.inject(model)
        outcomes.append(scores(model, {}))
        model.eject_all()
    other.inject(model)
    first.inject(model)
    assert torch.equal(scores(model, {}), outcomes[-1])
    model.eject_all()
    assert torch.equal(scores(model, {}), outcomes[0])
    for i, outcome in enumerate(outcomes):
        assert not any(torch.allclose(outcome, earlier) for earlier in outcomes[:i])


def test_many_adapters_answer_in_one_pass():
    model = small_model()
    adapters = [random(MAKES[name](), model) for name in ("seq_bn", "par_bn", "fusion")]
    for adapter in adapters:
        adapter.inject(model)
    prompts, conditions = compose.parallel(["Once upon", "I"], *adapters, None)
    options: dict[str, Any] = {"max_new_tokens": 4, "output": "scores"}
    together = model.generate(prompts, conditions=conditions, **options)
    model.eject_all()
    for i, adapter in enumerate([*adapters, None]):
        if adapter is not None:
            adapter.inject(model)
        for j, prompt in enumerate(("Once upon", "I")):
            alone = model.generate(prompt, **options).log_probabilities
            ours = together[2 * i + j].log_probabilities
            torch.testing.assert_close(ours, alone, atol=1e-5, rtol=1e-5)
        model.eject_all()
