"""The loop: parts of batches, short batches, schedules, half precision, processes."""

from unittest.mock import patch

import pytest
import torch
from refiners_train.data.loading import places, share
from refiners_train.engine.average import Average
from refiners_train.engine.device import build_accelerator
from refiners_train.engine.schedule import Schedule

from . import tiny
from .tiny import Pictures, Same, batches, config, run, tiny_loop, weights_of


def gradients(loop, place, batch):
    """Returns the gradients of one step, which moves nothing."""
    kept = []
    loop.optimiser.step = lambda: kept.extend(w.grad.clone() for w in loop.learners.weights)
    loop.take(place, batch)
    return kept


def close(left, right):
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_parts_of_a_batch_add_up_to_the_whole():
    whole = tiny_loop(config(batch=6, clip=0))
    parts = tiny_loop(config(batch=6, accumulation=4, clip=0))
    source = Pictures(6)
    left = gradients(whole, *next(batches(whole, source)))
    right = gradients(parts, *next(batches(parts, source)))
    close(left, right)
    assert whole.loss.item() == pytest.approx(parts.loss.item(), rel=1e-5)


def test_a_short_last_batch_weighs_as_its_own_size():
    """Six equal examples in batches of 4: both steps have the mean of their own rows."""
    loop = tiny_loop(config(batch=4, accumulation=4, clip=0))
    drawn = loop.objective.draw

    def same(batch, total, generator):
        one = drawn(batch, 1, generator.manual_seed(0))
        return {name: value.expand(total, *value.shape[1:]) for name, value in one.items()}

    loop.objective.draw = same
    order = batches(loop, Same(6))
    first, second = next(order), next(order)
    assert sorted(len(place.indices) for place, _ in (first, second)) == [2, 4]
    close(gradients(loop, *first), gradients(loop, *second))


def test_an_epoch_has_every_example_once_and_its_own_order():
    places_ = places(Pictures(10), 4, seed=0)
    epochs = [[next(places_) for _ in range(3)] for _ in range(2)]
    orders = [[index for place in epoch for index in place.indices] for epoch in epochs]
    assert [sorted(order) for order in orders] == [[*range(10)]] * 2
    assert orders[0] != orders[1]


def test_processes_share_the_same_batches():
    alone = places(Pictures(10), 4, seed=0)
    both = [places(Pictures(10), 4, seed=0, process=i, processes=2) for i in (0, 1)]
    for _ in range(7):
        whole, *parts = next(alone), *map(next, both)
        assert parts[0].indices + parts[1].indices == whole.indices
        assert [part.start for part in parts] == [0, len(parts[0].indices)]


@pytest.mark.parametrize(("rows", "processes"), [(5, 2), (1, 3), (8, 8), (0, 2)])
def test_shares_are_disjoint_and_cover_all_rows(rows, processes):
    spans = [share(rows, process, processes) for process in range(processes)]
    assert [row for start, end in spans for row in range(start, end)] == [*range(rows)]


def test_the_gradients_of_processes_add_up_to_those_of_one():
    """Every process draws the noise of all rows and takes its own."""
    settings = config(batch=6, clip=0)
    alone = tiny_loop(settings)
    whole = gradients(alone, *next(batches(alone, Pictures(6))))
    total = None
    for process in range(2):
        loop = tiny_loop(settings)
        place, batch = next(batches(loop, Pictures(6), process, 2))
        loop._summed = lambda values: torch.tensor([6.0, 0.0]) if len(values) == 2 else values
        part = gradients(loop, place, batch)
        total = part if total is None else [a + b for a, b in zip(total, part, strict=True)]
    close(whole, total)


def test_the_rate_moves_once_a_step_whatever_the_parts():
    shape = {"warm-up": 2, "hold": 0.5, "floor": 0.0}
    loop = tiny_loop(config(steps=4, batch=4, accumulation=4, **shape))
    rates = []
    order = batches(loop, Pictures(8))
    for _ in range(4):
        loop.take(*next(order))
        rates.append(loop.optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([0.005, 0.01, 0.01, 0.005])


def test_schedule_rises_holds_and_falls_to_the_floor():
    schedule = Schedule(steps=10, warm_up=2, hold=0.5, floor=0.1)
    assert [round(schedule(step), 3) for step in (0, 1, 2, 5, 9)] == [0.5, 1.0, 1.0, 1.0, 0.28]
    assert schedule(100) == 0.1


def test_the_frozen_base_keeps_its_bits():
    loop = tiny_loop(config())
    before = {name: weight.clone() for name, weight in loop.learners.frozen.items()}
    moved = weights_of(loop)
    run(loop, Pictures(8))
    assert all(torch.equal(loop.learners.frozen[name], value) for name, value in before.items())
    assert not all(map(torch.equal, moved, loop.learners.weights))


def scaled(scaler):
    """Returns a loop with a gradient scaler, which accelerate only makes for accelerators."""
    settings = config(average=0.9)
    made = build_accelerator("cpu", "float32")
    made.scaler = scaler
    with patch.object(tiny, "build_accelerator", lambda *_: made):
        return tiny_loop(settings)


def test_overflowing_gradients_move_nothing_and_halve_the_scale():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    loop = scaled(scaler)
    order = batches(loop, Pictures(16))
    loop.take(*next(order))
    before, means = weights_of(loop), [mean.clone() for mean in loop.average.means]
    rate = loop.optimiser.param_groups[0]["lr"]
    sums = loop.objective.sums
    loop.objective.sums = lambda batch, drawn: sums(batch, drawn) * torch.inf
    assert not loop.take(*next(order))
    assert (loop.step, loop.skipped) == (1, 1)
    assert all(map(torch.equal, before, loop.learners.weights))
    assert all(map(torch.equal, means, loop.average.means))
    assert scaler.get_scale() == 2.0**9
    loop.objective.sums = sums
    assert loop.take(*next(order))
    assert loop.optimiser.param_groups[0]["lr"] == rate
    again = scaled(torch.amp.GradScaler("cpu"))
    again.load_state_dict(loop.state_dict())
    assert again.accelerator.scaler.get_scale() == 2.0**9
    assert again.batches == 3


def test_a_running_mean_follows_the_weights_slowly():
    weight = torch.zeros(2)
    average = Average([weight], 0.9)
    weight += 1
    average.update()
    assert average.means[0].tolist() == pytest.approx([1 - 2 / 11] * 2)
    with average.in_place():
        assert weight.tolist() == pytest.approx([1 - 2 / 11] * 2)
    assert weight.tolist() == [1, 1]
