"""Windows on latents: what is cropped, by how much, and where predictions come back."""

from typing import Any

import pytest
import torch
from torch import Tensor

from refiners_core import Context
from refiners_core.models.diffusion import Window, window_scope


def positions(height: int, width: int, rows: int = 1) -> Tensor:
    return torch.arange(height * width).view(1, 1, height, width).float().repeat(rows, 1, 1, 1)


def step(size: tuple[int, int], conditions: Any, count: int = 1) -> Context:
    context = Context({"latents": positions(*size, rows=count), "branches": ("uncond", "cond")})
    context["conditions"] = conditions
    context.memory.lay(context["branches"], 2 * count)
    return context


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        ((1, 3, 9, 13), (slice(3, 7), slice(4, 10))),  # the latents
        ((1, 3, 5, 7), (slice(1, 3), slice(2, 5))),  # halved, rounded up
        ((1, 3, 3, 4), (slice(0, 1), slice(1, 3))),
        ((1, 3, 36, 52), (slice(12, 28), slice(16, 40))),  # pixels
        ((1, 2, 3, 9, 13), (slice(3, 7), slice(4, 10))),
    ],
    ids=str,
)
def test_maps_of_the_picture_are_cropped_at_every_size(shape: Any, part: Any):
    value = torch.randn(shape)
    context = step((9, 13), {"a.map": {"cond": value}})
    scope = window_scope(context, [Window(3, 4, 4, 6)], context.memory.part("w"))
    expected = value[(..., *part)]
    assert torch.equal(scope["conditions"]["a.map"]["cond"], expected)
    assert torch.equal(scope["a.map"], torch.cat([expected] * 2))
    assert torch.equal(scope["latents"], positions(9, 13)[..., 3:7, 4:10])


OTHERS = [(1, 9, 13), (1, 1, 1, 1), (1, 2, 9, 12), (1, 1, 18, 13)]


@pytest.mark.parametrize("shape", OTHERS, ids=str)
def test_other_values_are_not(shape: Any):
    value = torch.randn(shape)
    context = step((9, 13), {"a.value": {"cond": value}})
    scope = window_scope(context, [Window(3, 4, 4, 6)], context.memory.part("w"))
    assert torch.equal(scope["a.value"], torch.cat([value] * 2))


def test_masks_of_tokens_get_the_number_of_the_window():
    mask, tokens = positions(8, 16), positions(8, 16).flatten(2)
    half = positions(4, 8).flatten(2)
    conditions = {"a.mask": {"cond": mask}, "a.mask.128": {"cond": tokens}}
    conditions |= {"a.mask.32": {"cond": half}, "b.32": {"cond": half}}
    context = step((8, 16), conditions)
    scope = window_scope(context, [Window(0, 8, 8, 8)], context.memory.part("w"))
    assert torch.equal(scope["a.mask.64"][0, 0], mask[0, 0, :, 8:].flatten())
    assert torch.equal(scope["a.mask.16"][0, 0], positions(4, 8)[0, 0, :, 4:].flatten())
    assert torch.equal(scope["b.32"], torch.cat([half] * 2))
    assert "a.mask.128" not in scope["conditions"]


def test_rows_of_several_windows_follow_one_another_in_each_branch():
    by_image = positions(4, 8, rows=2) + torch.tensor([0.0, 100.0]).view(2, 1, 1, 1)
    conditions = {
        "a.map": {"cond": by_image, "uncond": -by_image[:1]},
        "text": {"cond": torch.tensor([[[1.0]], [[2.0]]])},
    }
    context = step((4, 8), conditions, count=2)
    windows = [Window(0, 0, 4, 4), Window(0, 6, 4, 4)]
    scope = window_scope(context, windows, context.memory.part("w"))
    first = scope["a.map"][:, 0, 0, 0].tolist()
    assert first == [0, 0, -6, -6, 0, 100, 6, 106]
    assert scope["a.map"][2, 0, 0].tolist() == [-6, -7, 0, -1]  # it wraps around
    assert scope["text"].flatten().tolist() == [1, 2, 1, 2] * 2
    assert scope.memory is not context.memory


def test_time_ids_state_the_size_of_the_window():
    ids = torch.tensor([[64.0, 128, 0, 0, 64, 128]])
    context = step((8, 16), {"time_ids": {"cond": ids}})
    scope = window_scope(context, [Window(0, 4, 8, 8)], context.memory.part("w"))
    assert scope["time_ids"][0].tolist() == [64, 64, 0, 0, 64, 64]


@pytest.mark.parametrize("window", [Window(1, 2, 3, 4), Window(3, 6, 3, 4)], ids=str)
def test_predictions_come_back_to_their_place(window: Window):
    whole, total = positions(5, 8), torch.zeros(1, 1, 5, 8)
    window.add(total, window.crop(whole))
    rows = torch.tensor([(window.top + i) % 5 for i in range(3)])
    columns = torch.tensor([(window.left + i) % 8 for i in range(4)])
    expected = torch.zeros(1, 1, 5, 8)
    expected[..., rows[:, None], columns] = whole[..., rows[:, None], columns]
    assert torch.equal(total, expected)
