"""Values that outlive a step: by branch where they have rows, for all branches where not."""

import pytest
import torch

from refiners_core import (
    Context,
    Identity,
    Lambda,
    Memory,
    Recall,
    Remember,
    Residual,
    Reuse,
    Scope,
)
from refiners_core.errors import ContextError


def rows(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None]


@pytest.fixture
def memory():
    memory = Memory()
    memory.lay(("uncond", "cond"), 4)
    return memory


def test_values_come_back_as_they_were_written(memory):
    cache = rows(1, 2, 3, 4)
    memory["a.cache"], memory["a.count"], memory["a.pair"] = cache, 3, (cache, -cache)
    for _ in range(2):
        assert memory["a.cache"] is cache
        assert memory["a.count"] == 3
        assert memory["a.pair"][0] is cache
        memory.lay(("uncond", "cond"), 4)
    assert "a.cache" in memory
    assert "a.other" not in memory
    assert memory.get("a.other", 7) == 7
    assert repr(memory) == "Memory(a.cache, a.count, a.pair)"


def test_a_missing_value_is_named_with_those_that_are_there(memory):
    memory["a.cache"] = 1
    with pytest.raises(
        ContextError, match=r"nothing is remembered as 'a\.cash'; .* has a\.cache"
    ) as e:
        memory["a.cash"]
    assert 'context.memory.get("a.cash")' in e.value.hint


def test_a_pass_over_fewer_branches_reads_its_rows(memory):
    memory["cache"], memory["pair"] = rows(1, 2, 3, 4), (rows(5, 6, 7, 8), rows(9, 10, 11, 12))
    memory.lay(("cond",), 2)
    assert memory["cache"].equal(rows(3, 4))
    assert memory["pair"][1].equal(rows(11, 12))
    memory["cache"] = rows(30, 40)
    memory.lay(("cond", "uncond"), 4)
    assert memory["cache"].equal(rows(30, 40, 1, 2))


def test_rows_are_absent_at_a_step_that_has_a_branch_without(memory):
    memory["cache"], memory["count"] = rows(1, 2, 3, 4), 3
    branches = ("uncond", "cond", "more")
    memory.lay(branches, 6)
    assert "cache" not in memory
    assert memory["count"] == 3
    for branch in branches:  # in a pass of its own as well
        memory.lay((branch,), 2, is_alone=True)
        assert "cache" not in memory
        memory["cache"] = rows(0, 0)
    memory.lay(branches, 6)
    assert memory["cache"].equal(rows(0, 0, 0, 0, 0, 0))


def test_passes_that_run_apart_have_values_of_their_own(memory):
    memory["level"], memory["seen"] = 1, 1
    for branch, seen in (("uncond", 5), ("cond", 6)):
        memory.lay((branch,), 2, is_alone=True)
        assert memory["level"] == 1  # written for all of them
        memory["seen"] = seen
    memory.lay(("uncond", "cond"), 4)
    assert memory["seen"] == 1
    memory.lay(("uncond",), 2, is_alone=True)
    assert memory["seen"] == 5


def test_the_last_write_counts_whether_it_has_rows_or_not(memory):
    for value in (rows(1, 2, 3, 4), 3, rows(5, 6, 7, 8), rows(1, 2)):
        memory["x"] = value
        memory.lay(("uncond", "cond"), 4)
        assert memory["x"] is value


def test_a_part_is_the_same_at_every_step_and_apart_from_others(memory):
    memory.part("left")["x"] = rows(1, 2, 3, 4)
    memory.lay(("cond",), 2)
    assert "x" not in memory
    assert "x" not in memory.part("right")
    assert memory.part("left")["x"].equal(rows(3, 4))


def test_passes_that_run_apart_have_parts_of_their_own(memory):
    memory.lay(("uncond",), 2, is_alone=True)
    memory.part("left")["count"] = 5
    memory.lay(("cond",), 2, is_alone=True)
    assert "count" not in memory.part("left")
    memory.lay(("uncond",), 2, is_alone=True)
    assert memory.part("left")["count"] == 5


def test_a_scope_remembers_nothing_unless_it_gets_a_memory():
    context = Context()
    context.memory["x"] = 1
    inner = context.scope()
    assert "x" not in inner.memory
    inner.memory["x"] = 2
    assert context.memory["x"] == 1
    assert context.scope(memory=context.memory).memory["x"] == 1


def test_the_children_of_a_scope_belong_to_the_same_pass():
    first = Context()
    tree = Scope(Residual(Recall("x")), Remember("x"))
    assert tree(3, context=first) == 3
    assert tree(4, context=Context(memory=first.memory)) == 7


def test_recall_runs_its_children_on_the_value():
    context = Context()
    assert Recall("x", Lambda(abs))(5, context=context) is None
    Remember("x")(-3, context=context)
    assert Recall("x", Lambda(abs))(5, context=context) == 3
    Remember("x")(2, 3, context=context)
    assert Recall("x", Lambda(pow))(5, context=context) == 8
    assert Recall("x")(5, context=context) == (2, 3)


def test_reuse_returns_the_last_output_while_its_flag_is_set():
    calls = []
    tree = Reuse("x", Lambda(lambda x: calls.append(x) or -x), Identity(), on="again")
    memory = Memory()
    outputs = [
        tree(x, context=Context({} if flag is None else {"again": flag}, memory))
        for x, flag in ((1, True), (2, None), (3, True), (4, False), (5, True))
    ]
    assert calls == [1, 2, 4]  # at the first call there is nothing to reuse
    assert outputs == [-1, -2, -2, -4, -4]
    assert "again" in repr(tree)
