"""Every training file that `refiners train init` writes can be planned as it is."""

import pytest
from refiners.errors import IncompatibleError
from refiners_train import load_config
from refiners_train.config.template import KINDS, write_template
from refiners_train.plan import Plan


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_for_the_playground_is_without_faults(tmp_path, kind):
    path = write_template(kind, "playground", tmp_path / f"{kind}.toml", force=False)
    config = load_config(path)
    assert config.train.objective == ("consistency" if kind == "lcm-lora" else "diffusion")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_for_the_playground_is_planned(tmp_path, kind):
    path = write_template(kind, "playground", tmp_path / f"{kind}.toml", force=False)
    plan = Plan.of(load_config(path))
    assert 0 < plan.trained < plan.frozen
    assert plan.memory > plan.frozen * 4


def test_an_adapter_that_does_not_suit_the_base_is_refused(tmp_path):
    with pytest.raises(IncompatibleError):
        write_template("t2i-adapter", "playground-writer", tmp_path / "x.toml", force=False)
    assert not (tmp_path / "x.toml").exists()
