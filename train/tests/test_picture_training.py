"""Trainings on a folder of pictures: resumed inside a bucket, planned, and with wrong options."""

import json

import pytest
from click.testing import CliRunner
from refiners_train import ConfigError, load_config, train

from refiners_core.weights import read

from .data.pictures import write_pictures
from .project import project


def pictures(folder, **changes):
    """Writes a training on a folder of pictures of three shapes, with prior examples."""
    write_pictures(folder / "dog", a=(96, 64), b=(64, 64), c=(64, 64), d=(60, 100), e=(70, 70))
    write_pictures(folder / "dogs", f=(96, 64), g=(64, 64), h=(50, 90))
    options = {
        "size": 32,
        "flip": 0.5,
        "buckets": {"step": 8},
        "prior": {"source": f"folder:{folder / 'dogs'}"},
        "cache": {"folder": str(folder / "latents"), "variants": 2},
    }
    data = {"source": f"folder:{folder / 'dog'}", "options": options, "text-dropped": 0.0}
    return project(folder, data=data, batch=2, **changes)


def losses(folder):
    lines = (folder / "run/log.jsonl").read_text().splitlines()
    return {line["step"]: line["loss"] for line in map(json.loads, lines)}


def test_a_run_that_stops_inside_a_bucket_goes_on_as_if_it_had_not(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(pictures(whole, steps=6), device="cpu", progress=False)
    path = pictures(parts, steps=6)

    class Stopped(Exception):
        pass

    def stop(step, loop):
        if step == 2:
            raise Stopped

    with pytest.raises(Stopped):
        train(path, device="cpu", progress=False, callback=stop)
    train(path, device="cpu", progress=False)
    assert losses(whole) == losses(parts)
    assert losses(whole).keys() == set(range(1, 7))
    left, right = (read(folder / "run/run.safetensors") for folder in (whole, parts))
    assert all(left[key].equal(right[key]) for key in left)
    assert len([*(whole / "latents").glob("*.safetensors")]) == 2 * 5


def test_a_plan_neither_checks_nor_encodes_pictures(tmp_path):
    from refiners_train.command import train as command

    path = pictures(tmp_path, steps=2)
    damaged = tmp_path / "dog/e.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    planned = CliRunner().invoke(command, [str(path), "--dry-run"], standalone_mode=False)
    assert planned.exception is None
    assert not (tmp_path / "latents").exists()
    with pytest.raises(Exception, match=r"e\.png"):
        train(path, device="cpu", progress=False)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("folder:nowhere", {}, "nowhere is not a folder"),
        ("folder:.", {"colour": 1}, "has no option colour"),
        ("folder:.", {"flip": 3}, "<= 1.0"),
        ("hf:someone/pictures", {}, "hf:someone/pictures@COMMIT"),
        ("jsonl:x.jsonl", {}, "is a source of texts, and this training reads pictures"),
        ("wds:", {}, "package.module:function"),
        ("refiners_playground.lesson:inked", {"colour": 1}, "cannot be made of colour"),
        ("refiners_playground.nowhere:inked", {}, "cannot be imported"),
    ],
)
def test_a_wrong_source_is_a_fault_of_the_file(tmp_path, source, options, message):
    with pytest.raises(ConfigError) as refusal:
        load_config(project(tmp_path, data={"source": source, "options": options}))
    assert message in str(refusal.value)
