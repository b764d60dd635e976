"""The printed tree is the documentation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from refiners_core import (
    Chain,
    Concatenate,
    Lambda,
    Residual,
    Scope,
    SetContext,
    Sum,
    UseContext,
    When,
    select,
)
from refiners_core.tree.show import show

from ..trees import EditSpec, RandomAdapter, add


class TimestepEncoder(Chain):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 4))


def text(*lines: str) -> str:
    return "\n".join(lines)


def test_a_tree_prints_names_classes_and_facts():
    tree = Chain(
        embed=TimestepEncoder(),
        body=Residual(nn.Conv2d(4, 4, 3, padding=1), Lambda(add), SetContext("note")),
        scope=Scope(UseContext("text"), rebind={"text": "identity"}),
        join=Concatenate(When("tokens", nn.Identity()), dim=2),
    )
    assert repr(tree) == text(
        "Chain",
        "├── embed: TimestepEncoder",
        "│   ├── Linear_0: Linear(4, 8)",
        "│   ├── SiLU_1: SiLU",
        "│   └── Linear_2: Linear(8, 4)",
        "├── body: Residual",
        "│   ├── Conv2d_0: Conv2d(4, 4, 3, padding=1)",
        "│   ├── Lambda_1: Lambda(add)",
        "│   └── SetContext_2: SetContext('note')",
        "├── scope: Scope(text=identity)",
        "│   └── UseContext_0: UseContext('text')",
        "└── join: Concatenate(dim=2)",
        "    └── When_0: When('tokens')",
        "        └── Identity_0: Identity",
    )


def test_equal_neighbours_are_folded_and_others_are_not():
    block = [TimestepEncoder() for _ in range(3)]
    tree = Chain(*block, nn.SiLU(), nn.SiLU(), nn.Linear(4, 4), nn.Linear(4, 5), nn.SiLU())
    assert repr(tree) == text(
        "Chain",
        "├── TimestepEncoder_0 ... TimestepEncoder_2 (x3): TimestepEncoder",
        "│   ├── Linear_0: Linear(4, 8)",
        "│   ├── SiLU_1: SiLU",
        "│   └── Linear_2: Linear(8, 4)",
        "├── SiLU_3 ... SiLU_4 (x2): SiLU",
        "├── Linear_5: Linear(4, 4)",
        "├── Linear_6: Linear(4, 5)",
        "└── SiLU_7: SiLU",
    )


@pytest.mark.parametrize(
    ("layer", "shown"),
    [
        (nn.Linear(4, 8, bias=False), "Linear(4, 8, bias=False)"),
        (nn.Linear(4, 8), "Linear(4, 8)"),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), "Conv2d(3, 8, 3, stride=2, padding=1)"),
        (nn.Conv2d(3, 8, (3, 1), groups=1, bias=False), "Conv2d(3, 8, (3, 1), bias=False)"),
        (nn.GroupNorm(2, 4, eps=1e-6), "GroupNorm(2, 4, eps=1e-06)"),
        (nn.LayerNorm(8), "LayerNorm(8)"),
        (nn.LayerNorm(8, bias=False), "LayerNorm(8, bias=False)"),
        (nn.Embedding(9, 4), "Embedding(9, 4)"),
        (nn.SiLU(inplace=True), "SiLU"),
        (nn.GELU(approximate="tanh"), "GELU(approximate=tanh)"),
        (nn.Dropout(0.1), "Dropout(p=0.1)"),
        (nn.Identity(), "Identity"),
    ],
)
def test_only_facts_that_differ_from_their_defaults_are_named(layer, shown):
    assert repr(Chain(only=layer)) == f"Chain\n└── only: {shown}"


def test_depth_limits_what_is_shown():
    tree = Chain(a=Chain(b=Chain(c=nn.SiLU(), d=nn.SiLU())))
    assert show(tree, depth=1) == text("Chain", "└── a: Chain", "    └── ... 1 layers")
    assert show(tree, depth=0) == text("Chain", "└── ... 1 layers")
    assert show(tree, depth=9) == repr(tree)


def test_the_start_and_end_of_the_layers_of_an_adapter_are_marked():
    tree = Chain(conv=nn.Linear(4, 4), act=nn.SiLU())
    bare = repr(tree)
    adapter = RandomAdapter([EditSpec("wrap", 0), EditSpec("before", 1)], key="lora").inject(tree)
    assert repr(tree) == text(
        "Chain",
        "├── conv+w0@lora: Residual  <- lora",
        "│   ├── Linear_0: Linear(4, 4)  <- base",
        "│   └── Shift_1: Shift",
        "├── act+b1@lora: Shift  <- lora",
        "└── act: SiLU",
    )
    adapter.eject()
    assert repr(tree) == bare


def test_layers_of_several_adapters_are_marked_apart():
    tree = Chain(conv=nn.Linear(4, 4))
    for key in ("a", "b"):
        RandomAdapter([EditSpec("wrap", 0)], key=key).inject(tree)
    assert repr(tree) == text(
        "Chain",
        "└── conv+w0@b: Residual  <- b",
        "    ├── Residual_0: Residual  <- a",
        "    │   ├── Linear_0: Linear(4, 4)  <- base",
        "    │   └── Shift_1: Shift",
        "    └── Shift_1: Shift",
    )


def test_folding_keeps_worn_and_bare_neighbours_apart():
    tree = Chain(*[TimestepEncoder() for _ in range(3)])
    RandomAdapter([EditSpec("after", 5)], key="lora").inject(tree)  # inside the second chain
    assert [line for line in repr(tree).splitlines() if "TimestepEncoder_" in line] == [
        "├── TimestepEncoder_0: TimestepEncoder",
        "├── TimestepEncoder_1: TimestepEncoder",
        "└── TimestepEncoder_2: TimestepEncoder",
    ]


def test_containers_of_torch_and_empty_places_are_shown():
    sequential = nn.Sequential(nn.SiLU(), nn.ModuleList([nn.Linear(1, 1)]))
    sequential.register_module("later", None)
    assert "1: ModuleList" in repr(Chain(sequential))
    assert "later" not in repr(Chain(sequential))


def test_a_tree_that_contains_itself_is_still_printed():
    tree = Chain(nn.SiLU())
    tree.append(Sum(tree))
    assert "... itself" in repr(tree)


def test_facts_that_cannot_be_compared_do_not_spoil_the_print():
    class Odd(nn.Module):
        def __init__(self, table=np.zeros(2), where=Path("x")) -> None:  # noqa: B008
            super().__init__()
            self.table, self.where = table, where

    assert repr(Chain(Odd(np.ones(2)))).startswith("Chain\n└── Odd_0: Odd(table=")
    assert repr(Chain(Odd(np.ones(2), Path("y")))).endswith("where=y)")


def test_a_custom_leaf_is_shown_with_its_extra_repr():
    class Attend(nn.Module):
        def extra_repr(self) -> str:
            return "heads=8"

    assert repr(Chain(Attend())) == "Chain\n└── Attend_0: Attend(heads=8)"


def test_a_tree_on_the_meta_device_prints_the_same():
    with torch.device("meta"):
        meta = TimestepEncoder()
    assert repr(meta) == repr(TimestepEncoder())
    assert len(select(meta)) == 3


def test_the_repr_of_an_adapter_names_the_model_that_wears_it():
    tree = Chain(conv=nn.Linear(4, 4))
    adapter = RandomAdapter([EditSpec("wrap", 0)], key="lora")
    assert repr(adapter) == "<RandomAdapter lora, not worn>"
    assert repr(adapter.inject(tree)) == "<RandomAdapter lora, worn by Chain>"
