"""The numbers of the losses: weights, masks, priors, dropping, sizes, distillation."""

import pytest
import torch
from refiners_lora.adapter import Lora
from refiners_train import Batch, Example
from refiners_train.data.batch import stacked
from refiners_train.engine.conditioning import Conditioning
from refiners_train.engine.consistency import Consistency, boundary, split
from refiners_train.engine.diffusion import Diffusion, small_mask
from refiners_train.engine.timestep import draw_timesteps
from refiners_train.engine.weighting import masked_mean, min_snr

from refiners_core import Adapter
from refiners_core.models.samplers import LCM, ScheduleConfig
from refiners_core.testing import tiny_model, tiny_sdxl

from .tiny import config

PICTURES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def alphas(*ratios):
    """Returns the signal shares with these signal-to-noise ratios."""
    snr = torch.tensor(ratios)
    return snr / (1 + snr)


@pytest.mark.parametrize(
    ("prediction", "weights"),
    [
        ("eps", [1, 1, 1, 0.05]),
        ("v", [0, 0.5, 5 / 6, 5 / 101]),
        ("x0", [0, 1, 5, 5]),
    ],
)
def test_min_snr_weights_at_ratios_0_1_5_and_100(prediction, weights):
    found = min_snr(alphas(0.0, 1.0, 5.0, 100.0), 5.0, prediction)
    assert found.tolist() == pytest.approx(weights, rel=1e-4, abs=1e-6)


def test_each_row_has_its_own_weight_after_its_own_mean():
    lesson, batch, drawn = diffusion(**{"snr-gamma": 5.0})
    plain, _, _ = diffusion()
    errors, weighted = plain.errors(batch, drawn), lesson.errors(batch, drawn)
    known = min_snr(plain.schedule.alphas[drawn["timesteps"]], 5.0, plain.schedule.prediction)
    torch.testing.assert_close(weighted, errors * known)
    assert known.unique().numel() > 1


def test_the_mask_sets_where_the_error_counts_and_not_how_much():
    error = torch.full((3, 4, 8, 8), 0.5)
    mask = torch.zeros(3, 1, 8, 8)
    mask[0, :, :4], mask[1, :, :1] = 1, 1
    assert masked_mean(error, mask).tolist() == [0.5, 0.5, 0.0]
    assert masked_mean(error, None).tolist() == [0.5, 0.5, 0.5]


def test_masks_shrink_to_the_size_of_latents():
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :16, :] = 1
    small = small_mask(Batch(["a"], PICTURES[:1], masks=mask), torch.zeros(1, 4, 8, 8))
    assert small.shape == (1, 1, 8, 8)
    assert small[0, 0, :, 0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]


def diffusion(**train):
    model = tiny_model()
    adapter = Lora(rank=2).inject(model)
    lesson = Diffusion(model, adapter, config(**train))
    batch = Batch(["a", "b", "c", "d"], PICTURES)
    drawn = lesson.draw(batch, 4, torch.Generator().manual_seed(0))
    return lesson, batch, drawn


def test_prior_examples_have_a_mean_and_a_weight_of_their_own():
    lesson, batch, drawn = diffusion(**{"prior-weight": 0.5})
    errors = lesson.errors(batch, drawn)
    mixed = Batch(batch.texts, PICTURES, is_prior=torch.tensor([False, False, True, True]))
    means = lesson.sums(mixed, drawn) / lesson.counts(mixed)
    torch.testing.assert_close(means, torch.stack([errors[:2].mean(), errors[2:].mean()]))
    assert lesson.weights.tolist() == [1.0, 0.5]


def test_an_example_may_weigh_more():
    lesson, batch, drawn = diffusion()
    errors = lesson.errors(batch, drawn)
    weights = torch.tensor([2.0, 1.0, 0.0, 1.0])
    heavier = Batch(batch.texts, PICTURES, weights=weights)
    torch.testing.assert_close(lesson.sums(heavier, drawn)[0], (errors * weights).sum())


def test_dropped_prompts_are_read_as_empty_negative_prompts():
    model = tiny_sdxl()  # which reads those as zeros
    reading = Conditioning(model, Lora(rank=2).inject(model))
    features = reading.texts(["a cat", "a cat"], [False, True], reading.scale)
    assert features["text"][0].abs().sum() > 0
    assert features["text"][1].abs().sum() == 0


def test_prompts_and_conditions_are_dropped_as_often_as_asked():
    lesson, batch, _ = diffusion(data={"text-dropped": 0.25, "condition-dropped": 0.5})
    drawn = lesson.draw(batch, 4000, torch.Generator().manual_seed(0))
    assert drawn["no_text"].float().mean() == pytest.approx(0.25, abs=0.03)
    assert drawn["no_condition"].float().mean() == pytest.approx(0.5, abs=0.03)
    both = (drawn["no_text"] & drawn["no_condition"]).float().mean()
    assert both == pytest.approx(0.125, abs=0.03)


def test_sdxl_reads_the_sizes_of_the_file_the_crop_and_the_picture():
    model = tiny_sdxl()
    reading = Conditioning(model, Lora(rank=2).inject(model))
    cropped = Example("a", PICTURES[0], original=(60, 100), corner=(0, 10))
    assert reading.sizes(stacked([cropped]))["time_ids"].tolist() == [[60, 100, 0, 10, 32, 32]]
    assert reading.sizes(stacked([Example("a", PICTURES[0])]))["time_ids"].tolist() == [
        [32, 32, 0, 0, 32, 32]
    ]


def test_timesteps_cover_the_schedule_and_prefer_shapes():
    generator = torch.Generator().manual_seed(0)
    even = draw_timesteps("uniform", 20_000, 1000, generator)
    shapes = draw_timesteps("shapes", 20_000, 1000, generator)
    assert (even.min(), even.max()) == (0, 999)
    assert even.float().mean().item() == pytest.approx(499.5, abs=8)
    middle = ((shapes > 300) & (shapes < 800)).float().mean().item()
    assert middle == pytest.approx(0.25 * 0.5 + 0.75 * 0.74, abs=0.03)


def test_the_boundary_condition_of_consistency():
    c_skip, c_out = boundary(torch.tensor([0, 1]))
    assert c_skip.tolist() == pytest.approx([1, 0.002494], abs=1e-6)
    assert c_out.tolist() == pytest.approx([0, 0.998752], abs=1e-6)


def test_the_student_returns_its_input_at_timestep_0():
    lesson, batch, drawn = consistency()
    x = torch.randn(4, 4, 8, 8)
    start = torch.zeros(4, dtype=torch.long)
    torch.testing.assert_close(lesson._consistent(x, start, lesson.context(batch, drawn)), x)


def test_the_student_draws_as_the_sampler_lcm_reads_it():
    lesson, batch, drawn = consistency()
    x = torch.randn(4, 4, 8, 8)
    sampler = LCM(schedule=lesson.schedule).with_steps(1)
    (start,) = sampler.timesteps
    at = torch.full((4,), start)
    context = lesson.context(batch, drawn)
    image = lesson._consistent(x, at, context)
    prediction = lesson._run(x, at, context)
    torch.testing.assert_close(image, sampler.step(x, prediction, 0).latents, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_a_prediction_splits_as_the_schedule_splits_it(prediction):
    schedule = ScheduleConfig(prediction=prediction)
    x, predicted = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2)
    both = split(schedule, x, predicted, torch.tensor([100, 900]))
    for row, timestep in enumerate((100, 900)):
        clean, noise = schedule.split(x[row], predicted[row], timestep)
        torch.testing.assert_close(both.clean[row], clean, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(both.noise[row], noise, rtol=1e-4, atol=1e-4)


def consistency(**train):
    model = tiny_model()
    adapter = Lora(rank=2).inject(model)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    lesson = Consistency(model, adapter, config(objective="consistency", **train))
    batch = Batch(["a", "b", "c", "d"], PICTURES)
    return lesson, batch, lesson.draw(batch, 4, torch.Generator().manual_seed(0))


def test_the_teacher_is_the_base_without_the_adapter_and_its_target_has_no_gradient():
    lesson, batch, drawn = consistency()
    x = torch.randn(4, 4, 8, 8)
    start, end = torch.full((4,), 519), torch.full((4,), 499)
    worn = lesson._teacher_step(x, start, end, batch, drawn)
    lesson.reading.adapter.eject()
    bare = lesson._teacher_step(x, start, end, batch, drawn)
    assert torch.equal(worn, bare)


def test_the_teacher_steps_on_its_grid_with_guidance():
    lesson, batch, _ = consistency(distillation={"grid": 50, "guidance": [2.0, 4.0]})
    drawn = lesson.draw(batch, 2000, torch.Generator().manual_seed(0))
    starts = drawn["timesteps"]
    assert (starts.min(), starts.max(), (starts + 1).remainder(20).max()) == (19, 999, 0)
    assert 2 <= drawn["guidance"].min() <= 2.05
    assert 3.95 <= drawn["guidance"].max() <= 4


def test_distillation_trains_the_adapter():
    lesson, batch, drawn = consistency()
    lesson.sums(batch, drawn).sum().backward()
    adapter: Adapter = lesson.reading.adapter
    assert all(weight.grad.abs().sum() > 0 for weight in adapter.parameters())
