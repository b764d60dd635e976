from pathlib import Path

import pytest
import refiners
from refiners.errors import RefinersError, UnsupportedError
from refiners_train.evaluate.estimate import Estimate
from refiners_train.evaluate.measuring import measured
from refiners_train.evaluate.result import Part, Trial

from .gauge import Gauge

INK = Part("gauge", "lora-ink")


@pytest.fixture
def gauge(monkeypatch: pytest.MonkeyPatch) -> Gauge:
    gauge = Gauge()
    monkeypatch.setattr(refiners, "load_measure", lambda name: gauge)
    return gauge


def test_without_is_the_same_run_without_the_adapter(gauge: Gauge):
    answer = measured(Trial(parts=(INK,), count=64, seed=5, batch=8, steps=3))
    without, with_ = gauge.runs
    assert (without[0], with_[0]) == (False, True)
    assert without[1] == with_[1]
    assert (without[1].seed, without[1].batch, without[1].steps) == (5, 8, 3)
    assert (without[2], with_[2]) == ((), ("lora-ink",))
    assert answer.result is not None
    hits, number = answer.result.rows
    assert (hits.value.value, hits.without and hits.without.value, hits.n) == (1, 0, 64)
    assert hits.value.low == pytest.approx(0.9434, abs=1e-3)
    assert (hits.bar, hits.is_kept) == (">= 0.50, <= 0.20 without", True)
    assert (number.value.value, number.bar, number.is_kept) == (63, "", None)


def test_a_result_states_hashes_versions_time_and_memory(gauge: Gauge):
    result = measured(Trial(parts=(INK,), count=2)).result
    assert result is not None
    [ink] = [adapter for adapter in refiners.adapters() if adapter.name == "lora-ink"]
    weights = {file.sha256 for file in ink.spec.weights.values()}
    assert set(result.files[ink.id].values()) <= weights
    assert {"unet", "vae"} <= set(result.files["refiners-playground:playground"])
    assert result.versions["refiners-core"] == "1.0.0.dev0"
    assert {"torch", "python"} <= set(result.versions)
    assert result.memory > 50
    assert result.seconds >= 0


def test_adapters_together_are_each_measured_beside_all_others(gauge: Gauge):
    alone = {"gauge": {"hits": Estimate(1, 1, 1)}}
    parts = (INK, Part("gauge", "palette"))
    gauge.scale_together = 0.5
    answer = measured(Trial(parts=parts, count=4, alone=alone))
    assert [is_on for is_on, _, _ in gauge.runs] == [False, True, False, True]
    for _, settings, worn in gauge.runs:
        assert worn == ("lora-ink", "palette")
        assert settings.scale == 0.5
    assert [[each.name for each in run[1].beside] for run in gauge.runs] == [
        *(["palette"], ["palette"], ["lora-ink"], ["lora-ink"])
    ]
    assert answer.result is not None
    hits = answer.result.rows[0]
    assert (hits.adapter, hits.alone and hits.alone.value) == ("lora-ink+palette", 1)
    assert (hits.bar, hits.is_kept) == (">= 0.9 x alone", True)


def test_adapters_of_different_bases_are_refused(monkeypatch: pytest.MonkeyPatch):
    others = {"a": Gauge(), "b": Gauge()}
    others["b"].base = "sd15"
    monkeypatch.setattr(refiners, "load_measure", others.__getitem__)
    with pytest.raises(UnsupportedError, match="different bases: playground and sd15"):
        measured(Trial(parts=(Part("a", "x"), Part("b", "y"))))


def test_a_model_of_another_base_is_refused(gauge: Gauge):
    with pytest.raises(RefinersError, match="is a playground-writer"):
        measured(Trial(parts=(INK,), model="playground-writer"))


def test_pictures_are_kept_with_their_prompts(tmp_path: Path):
    part = Part("lora-ink", "lora-ink")
    answer = measured(Trial(parts=(part,), count=2, steps=1, pictures=str(tmp_path)))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"{kind}-{i}.png" for kind in ("with", "without") for i in range(2)}
    assert len(answer.titles) == 2
    assert answer.titles[0].endswith("background")
