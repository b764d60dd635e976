"""A training file is checked before anything loads: all faults at once, each with its line."""

import pytest
from refiners_train import ConfigError, load_config
from refiners_train.config.schema import Config
from refiners_train.training import train

from .project import project

GOOD = """\
output = "run"
[base]
model = "playground"
[adapter]
name = "lora"
options = { rank = 4 }
[data]
source = "refiners_playground.lesson:inked"
options = { count = 8 }
[train]
steps = 10
batch = 2
"""


def faults(text, tmp_path):
    path = tmp_path / "train.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refusal:
        load_config(path)
    return [str(fault) for fault in refusal.value.faults]


def changed(**lines):
    """Returns the good file with other lines for some keys."""
    text = GOOD
    for key, line in lines.items():
        old = next(one for one in GOOD.splitlines() if one.startswith(f"{key} "))
        text = text.replace(old, line, 1)
    return text


def test_a_good_file_is_read(tmp_path):
    (tmp_path / "train.toml").write_text(GOOD)
    config = load_config(tmp_path / "train.toml")
    assert isinstance(config, Config)
    assert (config.train.steps, config.adapter.options) == (10, {"rank": 4})


def test_all_faults_of_form_are_told_with_their_lines(tmp_path):
    text = changed(steps='steps = "many"', batch="batch = 0\nsede = 1\nhold = 1.5")
    told = faults(text, tmp_path)
    assert [fault.split(":")[0] for fault in told] == [f"line {n}" for n in (11, 12, 13, 14)]
    assert "a whole number from 1" in told[0]
    assert "Did you mean 'seed'?" in told[2]
    assert "a share in 0...1" in told[3]


def test_all_unknown_names_are_told_with_their_lines(tmp_path):
    text = changed(
        model='model = "plaground"',
        name='name = "loar"',
        source='source = "refiners_playground.lesson:inkd"',
    )
    told = faults(text, tmp_path)
    assert [fault.split(":")[0] for fault in told] == ["line 3", "line 5", "line 8"]
    assert "playground" in told[0]
    assert "lora" in told[1]
    assert "inkd" in told[2]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ({"options": "options = { ranks = 4 }"}, "rank"),
        ({"name": 'name = "t2i-color"', "options": "options = {}"}, "no variant for playground"),
        ({"model": 'model = "./nowhere"'}, "does not exist"),
        ({"batch": "batch = 2\naccumulation = 3"}, "fewer examples than 3 parts"),
        ({"batch": "batch = 2\nwarm-up = 11"}, "more than the 10 steps"),
        ({"batch": "batch = 2\nother-learning-rate = 0.1"}, "one learning rate"),
        (
            {"batch": 'batch = 2\nobjective = "consistency"\nsnr-gamma = 5.0'},
            "consistency does not read it",
        ),
        ({"batch": "batch = 2\ndistillation = { grid = 10 }"}, "no teacher"),
        ({"batch": "batch = 2\ndistillation = { guidance = [4.0, 2.0] }"}, "above the highest"),
        ({"batch": 'batch = 2\nobjective = "guess"'}, "objective"),
        ({"batch": 'batch = 2\n[result]\nname = "My File"'}, "lower-case words"),
        ({"batch": 'batch = 2\n[result]\nrepository = "mine"'}, "organisation/name"),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path, lines, told):
    (only, *others) = faults(changed(**lines), tmp_path)
    assert told in only
    assert len(others) <= 1


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (told,) = faults(changed(output=f'output = "{tmp_path / "file"}"'), tmp_path)
    assert "is not a folder" in told


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.toml has 1 fault"):
        load_config(tmp_path / "nowhere.toml")


def test_nothing_is_written_for_a_faulty_file(tmp_path):
    path = project(tmp_path, steps=1, data={"source": "refiners_playground.lesson:inkd"})
    with pytest.raises(ConfigError):
        train(path, device="cpu")
    assert not (tmp_path / "run").exists()
