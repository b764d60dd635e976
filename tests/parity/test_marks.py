"""Markers of a single file beside its weights: read, or refused by name."""

import pytest
import torch
from safetensors.torch import save_file

from refiners_core.errors import ModelError, Notice, WeightsError
from refiners_core.models.formats.markers import HEADER, MARKS, facts_of
from refiners_core.models.samplers import ScheduleConfig
from refiners_core.weights import AS_IS, TensorFile, load

EMPTY = torch.tensor([])
ALPHAS = ScheduleConfig().alphas
SIGMAS = (1 / ALPHAS - 1).sqrt()


@pytest.fixture
def facts(tmp_path):
    def read(tensors=None, has_one_encoder=True, **header):
        path = tmp_path / "model.safetensors"
        texts = {key.replace("__", "."): text for key, text in header.items()}
        save_file({"weight": EMPTY, **(tensors or {})}, path, metadata=texts)
        with TensorFile(path) as file:
            return facts_of(file, has_one_encoder)

    return read


@pytest.mark.parametrize("prefix", ["", "model.", "model.diffusion_model."])
def test_markers_are_read_under_every_prefix(prefix, facts):
    assert facts().schedule == ScheduleConfig()
    assert facts({f"{prefix}v_pred": EMPTY}).schedule == ScheduleConfig(prediction="v")
    zero = facts({f"{prefix}v_pred": EMPTY, f"{prefix}ztsnr": EMPTY}).schedule
    assert (zero.prediction, zero.has_zero_snr, zero.timesteps(30)[0]) == ("v", True, 999)
    for mark in (mark for mark, fate in MARKS.items() if fate.startswith("refused")):
        with pytest.raises(ModelError, match=rf"has the key '{prefix}{mark}'.*EDM"):
            facts({prefix + mark: torch.ones(1)})


@pytest.mark.parametrize(
    ("header", "prediction", "has_zero_snr"),
    [
        ({"modelspec__prediction_type": "epsilon"}, "eps", False),
        ({"modelspec__prediction_type": "v"}, "v", False),
        ({"modelspec__prediction_type": "V_prediction"}, "v", False),
        ({"ss_v_parameterization": "True"}, "v", False),
        ({"ss_v_parameterization": "True", "ss_zero_terminal_snr": "True"}, "v", True),
        ({"modelspec__title": "velocity", "workflow": "{}"}, "eps", False),
    ],
)
def test_the_header_is_read(header, prediction, has_zero_snr, facts):
    schedule = facts(**header).schedule
    assert (schedule.prediction, schedule.has_zero_snr) == (prediction, has_zero_snr)


def test_contradicting_markers_are_refused(facts):
    with pytest.raises(
        ModelError, match=r"names several kinds of prediction .*v_pred: v, modelspec.*: eps"
    ):
        facts({"v_pred": EMPTY}, modelspec__prediction_type="epsilon")
    with pytest.raises(ModelError, match="got 'flow'"):
        facts(modelspec__prediction_type="flow")
    with pytest.raises(ModelError, match="was trained for the steps 0,200 only"):
        facts(modelspec__timestep_range="0,200")
    facts(modelspec__timestep_range="0, 1000")


def test_the_resolution_in_the_header_is_the_default_size(facts):
    assert facts().size is None
    assert facts(modelspec__resolution="768x512").size == (768, 512)
    assert facts(modelspec__resolution="1024").size == (1024, 1024)
    with pytest.warns(Notice, match="'large' is ignored"):
        assert facts(modelspec__resolution="large").size is None


def test_a_notice_suggests_clip_skip(facts, recwarn):
    facts(modelspec__encoder_layer="1")
    facts(has_one_encoder=False, modelspec__encoder_layer="2")
    assert not recwarn.list
    with pytest.warns(Notice, match=r"ClipSkip\(layers=1\).inject\(model\)"):
        facts(modelspec__encoder_layer="2")


def test_a_table_of_another_noise_schedule_is_refused(facts):
    for key, table in {"alphas_cumprod": ALPHAS, "denoiser.sigmas": SIGMAS}.items():
        assert facts({key: table.half()}).schedule == ScheduleConfig()
        with pytest.raises(ModelError, match="trained with another noise schedule"):
            facts({key: table[:500].clone()})
    zero = ScheduleConfig(prediction="v", has_zero_snr=True).alphas
    assert facts({"alphas_cumprod": zero, "v_pred": EMPTY}).schedule.has_zero_snr
    with pytest.raises(ModelError, match="with zero terminal SNR a network cannot predict noise"):
        facts({"alphas_cumprod": zero})


def test_the_tables_list_the_markers_that_are_read():
    assert {"v_pred", "ztsnr", "edm_mean", "scale_factor"} <= MARKS.keys()
    assert "modelspec.prediction_type" in HEADER


@pytest.mark.parametrize(
    "key",
    [
        *("position_ids", "a.b.embeddings.position_ids", "logit_scale", "model.logit_scale"),
        *("x.model_ema.decay", "model_ema.weight"),
    ],
)
def test_keys_without_weights_are_ignored_under_every_prefix(key):
    tree = torch.nn.Linear(2, 2)
    tensors = {**tree.state_dict(), key: torch.arange(3)}
    load(tree, tensors, AS_IS)
    tree.logit_scale = torch.nn.Parameter(torch.zeros(()))
    load(tree, {**tensors, "logit_scale": torch.ones(())}, AS_IS)
    assert tree.logit_scale == 1  # a key of the tree's own is no less one


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_packed_weights_are_widened_or_refused(kind):
    with torch.device("meta"):
        tree = torch.nn.Linear(2, 2)
    tensors = {name: torch.ones(it.shape).to(kind) for name, it in tree.named_parameters()}
    with pytest.raises(WeightsError, match=r"no arithmetic. Widen .*dtype=torch.bfloat16"):
        load(tree, tensors)
    assert load(tree, tensors, dtype=torch.bfloat16).weight.dtype == torch.bfloat16
    with pytest.raises(WeightsError, match=r"is torch.int8, quantised in an unknown way"):
        load(torch.nn.Linear(2, 2), {name: it.to(torch.int8) for name, it in tensors.items()})
