"""Attention with grouped heads, scales, caps and masks; shapes that contradict each other."""

import math

import pytest
import torch

from refiners_core import Chain, Lambda
from refiners_core.errors import ModelError
from refiners_core.layers import Attend


def attended(q, k, v, *, heads, kv_heads, scale=None, cap=None, added=0.0):
    """Returns attention head by head, from its formula."""
    outputs = []
    width = q.shape[-1] // heads
    for head in range(heads):
        group = head * kv_heads // heads
        a = q[..., head * width : (head + 1) * width]
        b, c = (x[..., group * width : (group + 1) * width] for x in (k, v))
        logits = a @ b.mT * (1 / math.sqrt(width) if scale is None else scale)
        logits = logits if cap is None else cap * torch.tanh(logits / cap)
        outputs.append((logits + added).softmax(-1) @ c)
    return torch.cat(outputs, -1)


def inputs(queries=5, keys=5, heads=6, kv_heads=2, rows=2, width=4):
    torch.manual_seed(0)
    q = torch.randn(rows, queries, heads * width)
    return q, *(torch.randn(rows, keys, kv_heads * width) for _ in "kv")


def near(a, b) -> bool:
    return torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("cap", [None, 0.7])
@pytest.mark.parametrize("scale", [None, 0.9])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_heads_share_keys_in_groups(kv_heads, scale, cap):
    q, k, v = inputs(kv_heads=kv_heads)
    sizes = {"heads": 6, "kv_heads": kv_heads, "scale": scale, "cap": cap}
    assert near(
        Attend(6, kv_heads=kv_heads, scale=scale, cap=cap)(q, k, v), attended(q, k, v, **sizes)
    )
    later = torch.full((5, 5), -math.inf).triu(1)
    causal = Attend(6, True, kv_heads=kv_heads, scale=scale, cap=cap)
    assert near(causal(q, k, v), attended(q, k, v, **sizes, added=later))


@pytest.mark.parametrize("cap", [None, 0.7])
def test_masks_of_the_context_of_the_call_and_of_causality_act_together(cap):
    q, k, v = inputs()
    seen = torch.rand(2, 1, 1, 5) > 0.4
    seen[..., 0] = True
    added = torch.randn(2, 5, 5)
    later = torch.full((5, 5), -math.inf).triu(1)
    hidden = torch.zeros(2, 1, 5).masked_fill(~seen[:, 0], -math.inf)
    attend = Attend(6, True, kv_heads=2, cap=cap, mask="seen")
    expected = attended(q, k, v, heads=6, kv_heads=2, cap=cap, added=added + later + hidden)
    assert near(attend(q, k, v, added, context={"seen": seen}), expected)
    alone = attended(q, k, v, heads=6, kv_heads=2, cap=cap, added=later + hidden)
    assert near(attend(q, k, v, context={"seen": seen}), alone)
    assert near(attend(q, k, v), Attend(6, True, kv_heads=2, cap=cap)(q, k, v))
    as_numbers = hidden[:, None]
    assert near(attend(q, k, v, context={"seen": as_numbers}), alone)
    both = seen[:, 0].expand(2, 5, 5)
    assert near(attend(q, k, v, both, context={"seen": seen}), alone)


@pytest.mark.parametrize("cap", [None, 0.7])
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_every_query_sees_the_keys_that_an_adapter_adds(cap, dtype):
    q, k, v = inputs(queries=3, keys=3)
    more = inputs(keys=2)[1:]
    longer = [torch.cat([a, b], 1) for a, b in zip(more, (k, v), strict=True)]
    later = torch.cat([torch.zeros(3, 2), torch.full((3, 3), -math.inf).triu(1)], 1)
    expected = attended(q, *longer, heads=6, kv_heads=2, cap=cap, added=later)
    assert near(Attend(6, True, kv_heads=2, cap=cap)(q, *longer), expected)
    seen = torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
    mask = seen if dtype == torch.bool else later[None, None, :, 2:]
    attend = Attend(6, kv_heads=2, cap=cap, mask="seen")
    assert near(attend(q, *longer, context={"seen": mask}), expected)
    prefixed = Chain(Lambda(lambda q, k, v: (q, *longer)), attend)
    assert near(prefixed(q, k, v, context={"seen": mask}), expected)


def test_a_single_query_attends_to_all_keys_so_far():
    q, k, v = inputs(queries=1, keys=4)
    assert torch.equal(Attend(6, True, kv_heads=2)(q, k, v), Attend(6, kv_heads=2)(q, k, v))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(2, 4, 24), (2, 4, 8), (2, 4, 8)], "6 heads of keys and values"),  # fewer key heads
        ([(2, 4, 24), (2, 8, 12), (2, 8, 12)], "keys \\[2, 8, 12\\]"),
        ([(2, 4, 24), (2, 4, 24), (2, 2, 24)], "values \\[2, 2, 24\\]"),
        ([(2, 4, 24), (2, 4, 24), (2, 4, 12)], "values \\[2, 4, 12\\]"),
        ([(2, 4, 24), (1, 4, 24), (1, 4, 24)], "keys \\[1, 4, 24\\]"),  # rows would become tokens
        ([(1, 4, 24), (2, 4, 24), (2, 4, 24)], "queries \\[1, 4, 24\\]"),
        ([(2, 3, 20), (2, 3, 20), (2, 3, 20)], "queries \\[2, 3, 20\\]"),  # 6 does not divide 20
    ],
)
def test_shapes_that_contradict_each_other_are_refused(shapes, message):
    with pytest.raises(ModelError, match=message):
        Attend(6)(*map(torch.randn, shapes))


@pytest.mark.parametrize("shape", [(3, 3), (2, 3, 2), (2, 3, 1), (2, 6, 3, 4), (3,)])
def test_masks_of_other_shapes_are_refused(shape):
    with pytest.raises(ModelError, match="got a mask"):
        Attend(6)(*(torch.randn(2, 3, 24) for _ in "qkv"), torch.zeros(shape))


def test_fewer_keys_than_the_mask_or_than_causal_tokens_are_refused():
    q, k, v = inputs(queries=3, keys=2)
    with pytest.raises(ModelError, match="got only 2 keys"):
        Attend(6, True, kv_heads=2)(q, k, v)
    with pytest.raises(ModelError, match="a mask of 3 keys came to attention over 2"):
        Attend(6, kv_heads=2, mask="seen")(q, k, v, context={"seen": torch.zeros(1, 1, 3, 3)})


@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 4), (6, 0), (0, None), (2, 6)])
def test_heads_that_cannot_be_grouped_are_refused(heads, kv_heads):
    with pytest.raises(ModelError, match="Choose kv_heads= that divides heads"):
        Attend(heads, kv_heads=kv_heads)


def test_it_prints_what_differs_from_the_defaults():
    attend = Attend(6, True, kv_heads=2, cap=50.0, mask="seen")
    assert str(Chain(attend)).endswith(
        "Attend(6, is_causal=True, kv_heads=2, cap=50.0, mask='seen')"
    )
    assert str(Chain(Attend(6, kv_heads=6))).endswith("Attend(6)")
