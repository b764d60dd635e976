"""Law 1 with changes by the user: hooks, modes, gradients, dtypes and devices that change while
adapters are worn stay changed after the last eject."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Sum, select
from refiners_core.errors import PlanError

from ..trees import (
    EditSpec,
    RandomAdapter,
    adapter_specs,
    bare_state,
    build_tree,
    outcome,
    tree_specs,
)

FEW = settings(max_examples=max(40, settings.default.max_examples // 4))


def wear(tree: Chain, specs: list[EditSpec]) -> RandomAdapter | None:
    adapter = RandomAdapter(specs)
    try:
        return adapter.inject(tree)
    except PlanError:
        return None


MOVES = {
    "half": lambda tree: tree.to(torch.bfloat16),
    "double": lambda tree: tree.double(),
    "meta": lambda tree: tree.to("meta"),
    "train": lambda tree: tree.train(),
    "eval": lambda tree: tree.eval(),
    "freeze": lambda tree: tree.requires_grad_(False),
}


def facts(tree: Chain) -> list[object]:
    return [
        [layer.training for layer in (tree, *tree.modules())],
        [(w.dtype, w.device.type, w.requires_grad) for w in (*tree.parameters(), *tree.buffers())],
    ]


@pytest.mark.parametrize("move", MOVES)
@FEW
@given(tree_specs(), adapter_specs())
def test_changes_of_a_worn_tree_reach_its_base_too(move, tree_spec, specs):
    tree, twin = build_tree(tree_spec), build_tree(tree_spec)
    adapter = wear(tree, specs)
    MOVES[move](tree)
    MOVES[move](twin)
    if adapter is not None:
        adapter.eject()
    assert facts(tree) == facts(twin)
    assert list(tree.state_dict()) == list(twin.state_dict())


@FEW
@given(tree_specs(), adapter_specs(), st.integers(0, 30))
def test_hooks_set_while_worn_stay_and_hooks_set_before_are_kept(tree_spec, specs, at):
    tree = build_tree(tree_spec)
    before = tree.register_forward_hook(lambda *_: None)
    adapter = wear(tree, specs)
    layers = [seat.layer for seat in select(tree)]
    calls: list[nn.Module] = []
    layer = layers[at % len(layers)]
    layer.register_forward_hook(lambda layer, *_: calls.append(layer))
    if adapter is not None:
        adapter.eject()
    assert before.id in tree._forward_hooks
    assert len(layer._forward_hooks) == 1
    outcome(tree)
    assert calls
    assert all(call is layer for call in calls)


class Lora(Adapter):
    """A linear beside each linear, and an encoder outside the tree."""

    def build(self, model: Chain, source: object) -> None:
        self.encoder = nn.Linear(4, 4)

    def edits(self, model: Chain):
        return (
            select(model)
            .of(nn.Linear)
            .wrap(lambda inner, seat: Sum(inner, self.layer(seat, lambda: nn.Linear(4, 4))))
        )


def tiny() -> Chain:
    return Chain(nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, 4))


def dtypes(adapter: Adapter) -> set[torch.dtype]:
    return {weight.dtype for weight in adapter.parameters()}


def test_an_adapter_follows_a_base_that_moved_after_the_eject():
    tree, adapter = tiny(), Lora()
    adapter.inject(tree).eject()
    tree.to(torch.bfloat16)
    adapter.inject(tree)
    assert dtypes(adapter) == {torch.bfloat16}
    assert tree(torch.zeros(1, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_an_adapter_takes_the_dtype_and_device_of_its_base():
    for tree in (tiny().double(), tiny().to("meta")):
        adapter = Lora().inject(tree)
        weight = next(adapter.own_layers.parameters())
        assert (weight.dtype, weight.device) == (tree.dtype, tree.device)


def test_weights_of_an_adapter_are_not_lost_to_a_base_without_weights():
    tree, adapter = tiny(), Lora()
    adapter.inject(tree).eject()
    tree.to("meta")
    adapter.inject(tree)
    assert {weight.device.type for weight in adapter.parameters()} == {"cpu"}


def test_training_an_adapter_leaves_the_base_alone():
    tree, adapter = tiny(), Lora()
    tree.requires_grad_(False)
    bare = bare_state(tree)
    adapter.inject(tree)
    optimiser = torch.optim.SGD(adapter.own_layers.parameters(), lr=0.1)
    before = [weight.detach().clone() for weight in adapter.own_layers.parameters()]
    tree(torch.ones(2, 4)).square().sum().backward()
    optimiser.step()
    assert any(
        not torch.equal(a, b) for a, b in zip(before, adapter.own_layers.parameters(), strict=True)
    )
    adapter.eject()
    assert bare_state(tree) == bare


def test_a_replaced_layer_moves_along_and_its_mode_and_gradients_too():
    tree = Chain(first=nn.Linear(4, 4), second=Chain(nn.BatchNorm1d(4), nn.Linear(4, 4)))
    adapter = RandomAdapter([EditSpec("replace", 0), EditSpec("remove", 1)]).inject(tree)
    tree.double().eval().requires_grad_(False)
    adapter.eject()
    weights: list[Tensor] = list(tree.parameters())
    assert {weight.dtype for weight in weights} == {torch.float64}
    assert not any(weight.requires_grad for weight in weights)
    assert not any(layer.training for layer in tree.modules())


def test_an_adapter_whose_layers_are_made_again_stays_on_the_device_of_its_base():
    tree = tiny()
    stays, leaves = Lora(key="stays"), Lora(key="leaves")
    stays.inject(tree)
    leaves.inject(tree)
    tree.to(torch.bfloat16)
    leaves.eject()
    assert {weight.dtype for weight in stays.own_layers.parameters()} == {torch.bfloat16}
    leaves.inject(tree)
    assert tree(torch.zeros(1, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
