"""An image carries everything from which it can be made again, and nothing of the machine."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from refiners_core import Adapter, Condition, Lambda, Sum, When
from refiners_core.errors import GenerationError
from refiners_core.models.diffusion.sampler_data import sampler_data, sampler_of
from refiners_core.models.samplers import SAMPLERS, TCD, ScheduleConfig
from refiners_core.origin import Origin
from refiners_core.picture.digest import digest, picture_digest
from refiners_core.recipe_image import RECIPE
from refiners_core.testing import tiny_model


def nothing_for(latents):
    return latents.new_zeros(len(latents), 8, *latents.shape[2:])


class Reads(Adapter):
    """An adapter that takes a condition."""

    takes_condition = True
    takes_mask = True

    def edits(self, model):
        nothing = When(self.scale_key, Lambda(nothing_for))
        return model.slot("unet.conv_in").wrap(lambda inner, seat: Sum(inner, nothing))

    def encode(self, value, request):
        return {}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def made(model, prompt="a", **arguments):
    options = {"seed": 7, "steps": 2, "size": 16, "progress": False} | arguments
    result = model.generate(prompt, **options)
    images = result if isinstance(result, list) else [result]
    return [json.loads(image.info[RECIPE]) for image in images]


def test_each_image_has_the_arguments_of_its_generation_and_its_position(model):
    recipes = made(model, ["a", "b"], negative_prompt="c", count=2, guidance=3)
    assert [recipe["image"] for recipe in recipes] == [0, 1, 2, 3]
    sampler = recipes[0]["arguments"].pop("sampler")
    assert sampler == sampler_data(model.sampler.with_steps(2))
    assert recipes[0]["arguments"] == {
        **{"prompt": ["a", "b"], "negative_prompt": "c", "count": 2, "steps": 2, "seed": 7},
        **{"guidance": 3.0, "guidance_rescale": 0.0, "size": [16, 16], "sequential": False},
    }
    assert recipes[0]["model"]["dtypes"]["unet"] == "float32"
    assert recipes[0]["made-with"]["device"] == "cpu"


def test_a_seed_that_was_drawn_is_recorded(model):
    image = model.generate("a", steps=1, size=16, progress=False)
    seed = json.loads(image.info[RECIPE])["arguments"]["seed"]
    again = model.generate("a", steps=1, size=16, progress=False, seed=seed)
    assert image.tobytes() == again.tobytes()
    assert made(model, count=2, seed=[5, 9])[0]["arguments"]["seed"] == [5, 9]


def test_pictures_masks_and_latents_are_recorded_by_hash(model):
    picture = Image.new("RGB", (16, 16), "red")
    mask, latents = np.ones((16, 16), np.float32), torch.ones(1, 4, 4, 4)
    arguments = made(model, image=picture, mask=mask, strength=0.6)[0]["arguments"]
    assert arguments["image"] == {"picture": picture_digest(picture), "size": [16, 16]}
    assert arguments["mask"]["shape"] == [16, 16]
    assert arguments["strength"] == 0.6
    arguments = made(model, latents=latents, seed=None)[0]["arguments"]
    assert arguments["latents"] == digest(latents)
    assert "seed" not in arguments


def test_an_adapter_is_recorded_with_its_condition_if_it_acts(model):
    origin = Origin("dist:reads", "1.2", {"weights": "ab"}, "style.safetensors", {"rank": 4})
    with Reads(key="reads").on(model) as adapter:
        adapter.origin = lambda reads: origin
        condition = Condition("a text", scale=0.5, end=0.5, mask=torch.ones(1, 1, 16, 16))
        (record,) = made(model, conditions={adapter: condition})[0]["adapters"]
        for idle in (None, Condition("a text", scale=0)):
            assert made(model, conditions={adapter: idle})[0]["adapters"] == []
        adapter.origin = None
        assert made(model, conditions={adapter: "b"})[0]["adapters"][0]["class"] == "Reads"
    assert record == {
        **{"key": "reads", "name": "reads", "id": "dist:reads", "version": "1.2"},
        **{"file": "style.safetensors", "files": {"weights": "ab"}, "options": {"rank": 4}},
        **{"scale": 0.5, "start": 0.0, "end": 0.5, "condition": "a text"},
        "mask": digest(condition.mask),
    }


@pytest.mark.parametrize("path", [{"timesteps": (900, 40)}, {"sigmas": (9.0, 1.5, 0.0)}])
def test_an_explicit_path_is_recorded_instead_of_steps(model, path):
    arguments = made(model, steps=None, sampler="euler", **path)[0]["arguments"]
    assert {name: tuple(arguments[name]) for name in path} == path
    assert "steps" not in arguments
    assert "explicit" not in arguments["sampler"]
    sampler = sampler_of(arguments["sampler"])
    options = {"seed": 7, "size": 16, "output": "latents", "progress": False}
    latents = model.generate("a", sampler=sampler, **path, **options)
    assert latents.equal(model.generate("a", sampler="euler", **path, **options))


def test_keys_do_not_depend_on_what_the_process_made_before(model):
    keys = ("reads-7", "reads-9", "mine")
    for key in keys:
        Reads(name="reads", key=key).inject(model)
    conditions = dict.fromkeys(model.adapters, "a")
    records = made(model, conditions=conditions)[0]["adapters"]
    model.eject_all()
    assert [record["key"] for record in records] == ["mine", "reads", "reads-2"]


def test_the_defaults_are_recorded(model):
    (recipe,) = made(model, steps=None, callback=lambda step, latents: False)
    assert (recipe["arguments"]["steps"], recipe["arguments"]["guidance"]) == (30, 7.5)


def test_an_early_end_is_recorded(model):
    assert made(model, callback=lambda step, latents: step < 1, steps=4)[0]["ended-after"] == 2
    assert "ended-after" not in made(model, callback=lambda step, latents: step < 1)[0]


def test_it_can_be_left_out(model):
    image = model.generate("a", steps=1, size=16, progress=False, recipe=False)
    assert type(image) is Image.Image
    assert image.info == {}


def test_no_path_of_the_machine_is_recorded(tmp_path: Path, monkeypatch):
    file = tmp_path / "secret" / "edges.png"
    file.parent.mkdir()
    Image.new("RGB", (4, 4)).save(file)
    monkeypatch.setenv("HOME", str(tmp_path))
    values = [file, str(file), "~/secret/edges.png", Image.open(file), {"face": [file, "C:\\x"]}]
    assert "secret" not in json.dumps(digest(values))
    assert digest(file) == {"path": "edges.png"}
    assert digest(Image.open(file))["name"] == "edges.png"


def test_values_that_are_not_paths_are_recorded_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dog").touch()
    for value in ("dog", "/imagine a cat", "red/blue", "a\0b", "x" * 5000, 3, 0.5, True, None):
        assert digest(value) == value


def test_a_picture_has_the_same_hash_in_every_mode_and_form(tmp_path):
    picture = Image.new("RGB", (4, 2), "white")
    picture.save(tmp_path / "a.png")
    for same in (Image.open(tmp_path / "a.png"), picture.convert("L"), picture.convert("P")):
        assert picture_digest(same) == picture_digest(picture)
    assert picture_digest(picture.resize((2, 4))) != picture_digest(picture)
    deep = Image.fromarray(np.full((2, 4), 300, np.uint16))
    assert picture_digest(deep) != picture_digest(Image.new("L", (4, 2), 255))


def test_tensors_and_arrays_of_every_dtype_have_a_hash():
    tensors = [torch.ones(2, dtype=dtype) for dtype in (torch.bfloat16, torch.float32, torch.bool)]
    arrays = [np.ones(2, np.float32), np.ones((2, 1), np.float32), np.ones((2, 3))[:, ::2]]
    hashes = [digest(value)["tensor"] for value in (*tensors, *arrays)]
    assert len({*hashes}) == 5  # the float32 tensor equals the float32 array
    assert hashes[1] == hashes[3]
    assert digest(torch.tensor(1.0))["shape"] == []


def test_other_values_are_recorded_by_type():
    assert digest(object()) == {"object": "object"}
    assert digest(float("nan")) == {"object": "float"}
    nested: list = []
    nested.append(nested)
    assert json.dumps(digest(nested)).count("object") == 1


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_is_made_again_from_its_record(name):
    sampler = SAMPLERS[name](ScheduleConfig(spacing="trailing", prediction="v")).with_steps(7)
    assert sampler_of(json.loads(json.dumps(sampler_data(sampler)))) == sampler


def test_a_sampler_without_a_name_is_recorded_by_class():
    class Mine(TCD):
        pass

    record = sampler_data(Mine())
    assert record == {"object": "Mine"}
    with pytest.raises(GenerationError, match=r"'Mine', is unknown\. Pass one: sampler="):
        sampler_of(record)


@pytest.mark.parametrize(
    "record",
    [
        {"name": "ddim", "speed": 1},
        {"name": "ddim", "schedule": {"speed": 1}},
        {"name": "ddim", "steps": "4"},
        {"name": "ddim", "schedule": 3},
        {"name": "ddim", "schedule": {"train_steps": 10**9}},
        {"name": "ddim", "schedule": {"spacing": "odd"}},
        {"name": "ddim", "schedule": {"beta_start": 2.0}},
        {"name": "tcd", "gamma": 4},
    ],
    ids=str,
)
def test_a_damaged_record_of_a_sampler_is_refused(record):
    with pytest.raises(GenerationError, match="cannot be made"):
        sampler_of(record)


def test_an_input_that_is_a_condition_is_recorded_with_its_fields(model):
    picture = Image.new("RGB", (8, 8), "red")

    def outlined(picture, size):
        return picture

    value = {"lines": Condition(picture, scale=0.5, preprocess=outlined), "depth": picture}
    with Reads(key="reads").on(model) as adapter:
        (recipe,) = made(model, conditions={adapter: value})
    (record,) = recipe["adapters"]
    plain = digest(picture)
    lines = {"value": plain, "scale": 0.5, "preprocess": {"object": "outlined"}}
    assert record["condition"] == {"inputs": {"lines": lines, "depth": plain}}
    assert "preprocess" not in record
