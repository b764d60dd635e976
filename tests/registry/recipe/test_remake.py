"""A picture is made again from its recipe and the installed packages, bit for bit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import refiners
import torch
from click.testing import CliRunner, Result
from PIL import Image
from refiners.cli import main
from refiners.errors import Notice, OptionError
from refiners.recipe.form import AdapterRecord, ArgumentRecord, ModelRecord, Recipe
from refiners.recipe.pieces import find_pieces
from refiners.remake import remake
from refiners_lora.adapter import Lora
from safetensors.torch import load_file, save_file

from refiners_core import Advice, Condition
from refiners_core.picture.digest import picture_digest
from refiners_core.recipe_image import RECIPE

FEW: dict[str, Any] = {"steps": 2, "progress": False}
AGAIN: dict[str, Any] = {"progress": False}


@pytest.fixture(autouse=True)
def _reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image.Image]:
    """Pictures of the playground with two adapters, the second of a batch, and their photo."""
    folder = tmp_path_factory.mktemp("made")
    model = refiners.load_model("playground")
    photo = model.generate("a red star", seed=1, **FEW)
    photo.save(folder / "photo.png")
    ink = refiners.load_adapter("lora-ink", model)
    image_prompt = refiners.load_adapter("ip-adapter", model)
    conditions = {
        image_prompt: Condition(Image.open(folder / "photo.png"), scale=0.6, end=0.5),
        ink: Condition(scale=0.7),
    }
    batch = model.generate(
        ["a heart", "a ring"], conditions=conditions, sampler="euler-ancestral", **FEW
    )
    return {"photo": photo, "batch": batch[1]}


@pytest.fixture
def saved(pictures: dict[str, Image.Image], tmp_path: Path) -> Path:
    """The picture of the batch in the working folder, and its photo in another."""
    (tmp_path / "elsewhere").mkdir()
    pictures["photo"].save(tmp_path / "elsewhere/photo.png")
    pictures["batch"].save(tmp_path / "ring.png")
    return tmp_path / "ring.png"


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.size == b.size and a.tobytes() == b.tobytes()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["generate", *arguments])


def test_a_picture_is_made_again_on_another_machine(pictures, tmp_path: Path):
    """Another process, home, cache and folder; the seed was drawn, the photo lies beside it."""
    home = tmp_path / "home"
    home.mkdir()
    pictures["batch"].save(tmp_path / "ring.png")
    pictures["photo"].save(tmp_path / "photo.png")
    kept = ("PATH", "OMP_NUM_THREADS", "PYTHONPATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"HOME": str(home), "HF_HOME": str(home / "hf"), "REFINERS_OFFLINE": "1"}
    command = [sys.executable, "-m", "refiners", "generate", "--like", str(tmp_path / "ring.png")]
    subprocess.run([*command, "--json"], cwd=home, env=environment, check=True, capture_output=True)
    assert same(Image.open(home / "out.png"), pictures["batch"])
    assert Image.open(home / "out.png").info[RECIPE] == pictures["batch"].info[RECIPE]


def test_a_missing_picture_is_asked_for_by_name(saved, pictures):
    message = r'ip-adapter: the picture photo.png, sha256 \w+...\n Pass conditions={"ip-adapter"'
    with pytest.raises(OptionError, match=message):
        refiners.regenerate(saved)
    again = refiners.regenerate(saved, conditions={"ip-adapter": "elsewhere/photo.png"}, **AGAIN)
    assert same(again, pictures["batch"])


def test_the_shell_asks_in_its_words_and_takes_the_picture(saved, pictures):
    refusal = run("--like", "ring.png")
    assert refusal.exit_code == 2
    assert "Add --condition ip-adapter=PATH." in refusal.stderr
    done = run("--like", "ring.png", "--condition", "ip-adapter=elsewhere/photo.png", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["model"] == "refiners-playground:playground"
    assert same(Image.open("out.png"), pictures["batch"])


def test_another_picture_is_taken_with_a_notice(saved, pictures):
    Image.new("RGB", (64, 64), "blue").save("photo.png")  # has the name, not the hash
    with pytest.raises(OptionError, match=r"photo\.png"):
        refiners.regenerate(saved)
    with pytest.warns(Notice, match="ip-adapter is not the one of the recipe: its hash differs"):
        again = refiners.regenerate(saved, conditions={"ip-adapter": "photo.png"}, **AGAIN)
    assert not same(again, pictures["batch"])


def test_another_seed_or_prompt_makes_this_picture_alone(saved, pictures):
    shutil.copy("elsewhere/photo.png", ".")
    recipe = refiners.read_recipe(saved)
    made = refiners.regenerate(saved, seed=4, **AGAIN)
    facts = json.loads(made.info[RECIPE])["arguments"]
    assert (facts["prompt"], facts["seed"], facts["count"]) == ("a ring", 4, 1)
    two = refiners.regenerate(saved, count=2, **AGAIN)
    assert [json.loads(image.info[RECIPE])["arguments"]["seed"] for image in two] == [
        recipe.seed
    ] * 2
    assert json.loads(two[0].info[RECIPE])["arguments"]["prompt"] == "a ring"


def test_the_shell_changes_what_is_given(saved, tmp_path: Path):
    shutil.copy("elsewhere/photo.png", ".")
    adapter = "ip-adapter=elsewhere/photo.png:0.2"
    done = run("a cross", "--like", "ring.png", "--adapter", adapter, "--no-recipe", "--json")
    assert done.exit_code == 0, done.output
    assert Image.open("out.png").info == {}
    recipe = refiners.read_recipe(saved)
    with pytest.MonkeyPatch.context() as patch:
        seen: dict[str, Any] = {}
        patch.setattr("refiners.remake.remake", lambda pieces, changes, **_: seen.update(
            pieces=pieces, changes=changes) or Image.new("RGB", (4, 4)))  # fmt: skip
        run("--like", "ring.png", "--adapter", adapter, "--steps", "1")
    assert seen["changes"] == {"steps": 1, "progress": True}
    scales = {part.name: part.condition["scale"] for part in seen["pieces"].parts}
    assert scales == {"refiners-lora:lora-ink": 0.7, "refiners-ipadapter:ip-adapter": 0.2}
    assert recipe.arguments.sampler == seen["pieces"].arguments["sampler"]


def test_the_shell_takes_a_file_in_place_of_that_of_the_recipe(tmp_path: Path):
    model = refiners.load_model("playground")
    Lora(rank=1).inject(model).save("elsewhere.safetensors")
    model.eject_all()
    style = refiners.load_adapter("elsewhere.safetensors", model)
    model.generate("a ring", seed=1, **FEW).save("ring.png")
    style.eject()
    adapter = "./elsewhere.safetensors:0.2"
    done = run("--like", "ring.png", "--adapter", adapter)
    assert done.exit_code == 0, done.output
    (record,) = refiners.read_recipe("out.png").adapters
    assert (record.id, record.scale) == ("refiners-lora:lora", 0.2)


def test_conditions_without_a_place_are_refused(saved):
    given = {"ip-adapter": "elsewhere/photo.png", "edges": "elsewhere/photo.png"}
    with pytest.raises(OptionError, match=r"nothing with the name edges. It has ip-adapter, lora-"):
        refiners.regenerate(saved, conditions=given)
    for wrong, message in (("a", "not NAME=PATH"), ("a=none.png", "does not exist")):
        assert message in run("--like", "ring.png", "--condition", wrong).output
    assert "goes with --like" in run("x", "--condition", "a=ring.png").output


def test_an_early_end_and_an_initial_picture_are_repeated(pictures):
    model = refiners.load_model("playground")
    made = model.generate(
        "a heart",
        image=pictures["photo"],
        mask=Image.new("L", (64, 64), "white"),
        strength=0.9,
        seed=3,
        **{**FEW, "steps": 4},
        callback=lambda step, latents: step < 1,
    )
    given = {"image": pictures["photo"], "mask": Image.new("L", (64, 64), "white")}
    recipe = msgspec.json.decode(made.info[RECIPE], type=Recipe)
    assert recipe.ended_after == 2
    assert same(refiners.regenerate(recipe, conditions=given, **AGAIN), made)


def test_the_keys_and_options_of_adapters_are_repeated():
    model = refiners.load_model("playground")
    for options in ({"key": "z"}, {"key": "a"}, {}):
        refiners.load_adapter("lora-ink", model, **options)
    made = model.generate("a heart", seed=3, **FEW)
    recipe = msgspec.json.decode(made.info[RECIPE], type=Recipe)
    assert [record.key for record in recipe.adapters] == ["a", "lora-ink", "z"]
    again = refiners.regenerate(recipe, **AGAIN)
    assert same(again, made)
    assert again.info[RECIPE] == made.info[RECIPE]


@pytest.mark.parametrize(
    ("scale", "of_this_picture"),
    [
        (
            {"unet.up.2": 1.0, "unet.mid": [0.4, 0.0]},
            {"inputs": {"unet.up.2": 1.0, "unet.mid": 0.0}},
        ),
        ([(0.0, 1.0), (0.5, 0.2)], [[0.0, 1.0], [0.5, 0.2]]),
        ([0.5, 0.9], 0.9),
        (torch.tensor([0.5, 1.0]), 1.0),
    ],
    ids=str,
)
def test_scales_of_every_form_are_repeated(scale, of_this_picture):
    model = refiners.load_model("playground")
    ink = refiners.load_adapter("lora-ink", model)
    made = model.generate(
        "a heart", conditions={ink: Condition(scale=scale)}, count=2, seed=3, **FEW
    )[1]
    recipe = msgspec.json.decode(made.info[RECIPE], type=Recipe)
    assert same(refiners.regenerate(recipe, **AGAIN), made)
    alone = refiners.regenerate(recipe, seed=4, **AGAIN)
    assert json.loads(alone.info[RECIPE])["adapters"][0]["scale"] == of_this_picture


def test_a_function_of_progress_is_recorded_as_pairs():
    model = refiners.load_model("playground")
    ink = refiners.load_adapter("lora-ink", model)
    scale = {ink: Condition(scale=lambda progress: 1 - progress**2)}
    made = model.generate("a heart", conditions=scale, seed=3, **FEW)
    recipe = msgspec.json.decode(made.info[RECIPE], type=Recipe)
    assert recipe.adapters[0].scale[0] == [0, 1]
    assert same(refiners.regenerate(recipe), made)


def test_a_function_that_returns_scales_by_place_is_asked_for():
    def up(progress):
        return {"unet.up": 1 - progress}

    model = refiners.load_model("playground")
    ink = refiners.load_adapter("lora-ink", model)
    made = model.generate("a heart", conditions={ink: Condition(scale=up)}, seed=3, **FEW)
    recipe = msgspec.json.decode(made.info[RECIPE], type=Recipe)
    with pytest.raises(OptionError, match=r"lora-ink\.scale: a value of type function"):
        refiners.regenerate(recipe)
    assert same(refiners.regenerate(recipe, conditions={"lora-ink.scale": up}, **AGAIN), made)


def test_the_shell_prints_a_notice_once(saved):
    shutil.copy("elsewhere/photo.png", ".")
    adapter = "ip-adapter=photo.png"
    with pytest.MonkeyPatch.context() as patch:
        advice = Advice(steps=1, is_required=True)
        patch.setattr("refiners.sources.origin.advice_for", lambda *_: advice)
        done = run("x", "--adapter", adapter, "--steps", "2")
        assert done.stderr.count("is only right with steps=1") == 1
        run("x", "--adapter", adapter)
    assert refiners.read_recipe("out.png").arguments.steps == 1


def test_the_dtypes_of_components_are_repeated():
    model = refiners.load_model("playground")
    model.text_encoder.double()
    made = model.generate("a heart", seed=3, **FEW)
    made.save("a.png")
    assert same(refiners.regenerate("a.png", **AGAIN), made)


# --- what cannot be found ------------------------------------------------------------------------


def recipe_of(*adapters: AdapterRecord, **model: Any) -> Recipe:
    record = ModelRecord(**{"id": "refiners-playground:playground", **model})
    return Recipe(model=record, adapters=adapters, arguments=ArgumentRecord(prompt="a"))


def test_every_missing_piece_is_listed():
    picture = {"picture": "ab" * 32, "name": "edges.png", "size": [4, 4]}
    recipe = recipe_of(
        AdapterRecord(key="edge", id="refiners-gone:edge", version="1.2"),
        AdapterRecord(key="mine", kind="Mine"),
        AdapterRecord(
            key="canny",
            id="refiners-controlnet:controlnet-canny",
            condition={"inputs": {"edges": picture, "depth": {"tensor": "cd", "shape": [1, 4]}}},
            mask={"object": "Custom"},
        ),
        id="refiners-none:model",
    )
    with pytest.raises(OptionError) as caught:
        refiners.regenerate(recipe)
    for line in (
        "\n  model: refiners-none:model",
        "\n  edge: refiners-gone:edge 1.2",
        "\n  mine: an adapter of the class Mine, which comes from no package",
        "\n  canny.edges: the picture edges.png, sha256 abababababab...",
        "\n  canny.depth: a tensor [1, 4], sha256 cd...",
        "\n  canny.mask: a value of type Custom",
    ):
        assert line in caught.value.message
    assert '"canny.edges": "PATH", "canny.depth": "PATH"' in caught.value.hint


@pytest.mark.parametrize(
    "record", [{"kind": "LatentDiffusion"}, {}, {"id": "file:gone.safetensors"}]
)
def test_another_model_may_be_named(record):
    recipe = Recipe(model=ModelRecord(**record), arguments=ArgumentRecord())
    with pytest.raises(OptionError, match="Pass the model: model="):
        find_pieces(recipe)
    assert find_pieces(recipe, model="playground").model == "playground"


def test_other_versions_and_files_are_told():
    recipe = recipe_of(
        AdapterRecord(
            key="ink", id="refiners-lora:lora-ink", version="0.1", files={"weights": "0"}
        ),
        version="0.2",
        files={"unet": "00"},
    )
    with pytest.warns(Notice) as caught:
        find_pieces(recipe)
    notes = {str(warning.message) for warning in caught}
    installed = refiners.models()[0].version
    assert notes == {
        f"refiners-playground:playground 0.2 made the picture; {installed} is installed.",
        "the file unet of refiners-playground:playground differs from that of the recipe.",
        f"refiners-lora:lora-ink 0.1 made the picture; {installed} is installed.",
        "the files of refiners-lora:lora-ink differ from those of the recipe.",
    }


def test_a_file_of_the_user_is_found_by_hash_or_asked_for(tmp_path: Path):
    model = refiners.load_model("playground")
    source = Path(refiners.load_adapter("lora-ink", model).source.files["weights"])
    model.eject_all()
    save_file(load_file(source), tmp_path / "style.safetensors", {"title": "a hash of its own"})
    with refiners.load_adapter("lora", file=tmp_path / "style.safetensors").on(model):
        made = model.generate("a heart", seed=3, **FEW)
    recipe = msgspec.json.decode(made.info[RECIPE], type=Recipe)
    assert str(tmp_path) not in made.info[RECIPE]
    assert recipe.adapters[0].file == "style.safetensors"
    assert same(refiners.regenerate(recipe, **AGAIN), made)
    (tmp_path / "style.safetensors").rename(tmp_path / "moved.safetensors")
    with pytest.raises(OptionError, match=r"lora: the file style.safetensors, sha256 \w{12}"):
        refiners.regenerate(recipe)
    again = refiners.regenerate(recipe, conditions={"lora": "moved.safetensors"}, **AGAIN)
    assert same(again, made)
    with pytest.warns(Notice, match="is not the style.safetensors of the recipe"):
        find_pieces(recipe, conditions={"lora": __file__})


@pytest.mark.parametrize("option", ["weights", "file", "name", "offline"])
def test_a_recipe_cannot_pass_arguments_of_the_loader(option):
    record = AdapterRecord(key="ink", id="refiners-lora:lora-ink", options={option: "x"})
    with pytest.raises(OptionError, match="do not trust it"):
        find_pieces(recipe_of(record))


@pytest.mark.parametrize("name", ["../photo.png", "/etc/passwd", "..", "a/b.png"])
def test_a_name_with_a_folder_is_never_opened(name, tmp_path: Path):
    (tmp_path / "deep").mkdir()
    os.chdir(tmp_path / "deep")
    Image.new("RGB", (4, 4)).save(tmp_path / "photo.png")
    record = AdapterRecord(
        key="ip",
        id="refiners-ipadapter:ip-adapter",
        condition={"picture": "ab", "name": name},
        file=name,
    )
    with pytest.raises(OptionError, match="without"):
        find_pieces(recipe_of(record))


def test_info_prints_the_recipe_without_torch(saved):
    result = CliRunner().invoke(main, ["info", "ring.png"])
    assert result.exit_code == 0
    for text in (
        "a ring",
        "euler-ancestral",
        "0.6, 0...0.5",
        "the picture photo.png",
        "ip-adapter",
    ):
        assert text in result.stdout
    facts = json.loads(CliRunner().invoke(main, ["info", "ring.png", "--json"]).stdout)
    assert facts["recipe"]["image"] == 1
    assert facts["recipe"]["adapters"][0]["scale"] == 0.6
    code = "import sys; from refiners.cli import main; sys.modules['torch'] = None; main()"
    done = subprocess.run([sys.executable, "-c", code, "info", "ring.png"], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "does not exist" in CliRunner().invoke(main, ["info", "none.png"]).stderr


def test_an_input_with_its_own_scale_and_preprocessor_is_a_condition_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    picture = Image.new("RGB", (8, 8), "red")
    picture.save("edges.png")
    digests = {"picture": picture_digest(picture), "size": [8, 8], "name": "edges.png"}
    inputs = {
        "canny": {"value": digests, "scale": 0.5, "preprocess": "soft-edge"},
        "depth": {"value": {**digests, "name": ""}, "scale": 0.25},
    }
    recipe = Recipe(
        model=ModelRecord(id="refiners-core:sdxl"),
        adapters=(
            AdapterRecord(
                key="union",
                id="refiners-controlnet:controlnet-union",
                condition={"inputs": inputs},
            ),
        ),
        arguments=ArgumentRecord(prompt="a"),
    )
    with pytest.raises(OptionError, match=r"union\.depth: the picture, sha256 "):
        find_pieces(recipe)
    pieces = find_pieces(recipe, conditions={"union.depth": tmp_path / "edges.png"})
    seen: dict[str, Any] = {}

    class Model:
        def generate(self, **arguments: Any) -> None:
            seen.update(arguments["conditions"]["union"].value)

    monkeypatch.setattr("refiners.remake.load_model", lambda *_, **__: Model())
    monkeypatch.setattr("refiners.remake.load_adapter", lambda *_, **__: "union")
    remake(pieces, {})
    canny, depth = seen["canny"], seen["depth"]
    assert (canny.scale, canny.preprocess, depth.scale) == (0.5, "soft-edge", 0.25)
    assert picture_digest(canny.value) == picture_digest(depth.value) == digests["picture"]
