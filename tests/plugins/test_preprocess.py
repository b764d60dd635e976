"""Photos become the inputs of installed adapters, as their manifests declare it."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import pytest
import refiners
import refiners_preprocessors
import torch
from click.testing import CliRunner
from PIL import Image
from refiners.choose.lookup import find_preprocessor
from refiners.cli import main
from refiners.errors import Notice, OptionError, UnknownNameError
from refiners.load import dress, outline
from refiners.recipe.form import AdapterRecord, ArgumentRecord, ModelRecord, Recipe
from refiners.recipe.pieces import find_pieces

from refiners_core import Condition
from refiners_core.errors import ConditionError
from refiners_core.picture import to_images

DECLARED = sorted(
    {
        (adapter.name, role, given.preprocessor)
        for adapter in refiners.adapters()
        for role, given in adapter.spec.input.items()
        if given.preprocessor
    }
)
NOT_PROVIDED = {
    *("cpds", "hand-depth", "mlsd", "normal", "normalbae", "segment-anything", "segmentation"),
}
"""The preprocessors that no package here provides: networks, and that of one Control-LoRA."""


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    levels = torch.zeros(1, 3, 64, 64)
    levels[:, :2, 16:48, 20:44] = 1  # a yellow square
    return to_images(levels)[0]


@pytest.fixture(scope="module")
def model() -> Any:
    return refiners.load_model("playground")


def generate(model: Any, conditions: Any) -> torch.Tensor:
    arguments = {"seed": 3, "steps": 1, "output": "latents", "progress": False}
    return model.generate("a heart", conditions=conditions, **arguments)


def test_manifests_declare_preprocessors():
    assert {name for name, *_ in DECLARED} >= {"controlnet-canny", "t2i-color", "controlnet-tile"}


@pytest.mark.parametrize(("name", "role", "preprocessor"), DECLARED)
def test_a_declared_preprocessor_is_provided_or_a_known_network(
    name: str, role: str, preprocessor: str
):
    try:
        assert find_preprocessor(preprocessor).dist == "refiners-preprocessors"
    except UnknownNameError:
        assert preprocessor in NOT_PROVIDED


def test_a_photo_gives_the_same_picture_as_its_edges(model: Any, photo: Image.Image):
    edges = refiners.load_preprocessor("canny")(photo)
    with refiners.load_adapter("controlnet-canny").on(model) as canny:
        wanted = generate(model, {canny: edges})
        for how in (True, "canny", "refiners-preprocessors:canny", lambda value, size: edges):
            assert generate(model, {canny: Condition(photo, preprocess=how)}).equal(wanted)
        assert not generate(model, {canny: photo}).equal(wanted)


def test_a_picture_from_a_photo_is_made_again(
    model: Any, photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    photo.save("photo.png")
    arguments = {"seed": 3, "steps": 1, "progress": False}

    def traced(value: Any, *, size: Any = None) -> Image.Image:
        return Image.new("L", size, 255)

    made: list[Image.Image] = []
    with refiners.load_adapter("controlnet-canny").on(model) as canny:
        for how in (True, "soft-edge", traced):
            condition = Condition(Image.open("photo.png"), preprocess=how)
            made.append(model.generate("a heart", conditions={canny: condition}, **arguments))
    for image, id in zip(made, ("canny", "soft-edge"), strict=False):
        image.save("made.png")
        record = refiners.read_recipe("made.png").adapters[0]
        assert record.preprocess == f"refiners-preprocessors:{id}"
        assert record.preprocessors == {record.preprocess: version("refiners-preprocessors")}
        assert refiners.regenerate("made.png", progress=False).tobytes() == image.tobytes()
    made[2].save("made.png")
    with pytest.raises(OptionError, match=r"\.preprocess: the preprocessor traced, a fun") as error:
        refiners.regenerate("made.png")
    assert error.value.hint == (
        'Pass the function: conditions={"controlnet-canny.preprocess": function}.'
    )
    passed = {"controlnet-canny.preprocess": traced}
    again = refiners.regenerate("made.png", conditions=passed, progress=False)
    assert again.tobytes() == made[2].tobytes()
    assert made[2].tobytes() != made[0].tobytes()


def test_a_recipe_names_the_preprocessors_that_are_missing_or_differ():
    recipe = Recipe(
        model=ModelRecord(id="refiners-playground:playground"),
        adapters=(
            AdapterRecord(
                key="canny",
                id="refiners-controlnet:controlnet-canny",
                preprocess="refiners-preprocessors:canny",
                preprocessors={"refiners-preprocessors:canny": "0.1", "refiners-deep:hed": "2.0"},
            ),
        ),
        arguments=ArgumentRecord(prompt="a"),
    )
    with pytest.raises(OptionError, match=r"canny: refiners-deep:hed 2\.0"):
        find_pieces(recipe)
    (record,) = recipe.adapters
    record = msgspec.structs.replace(record, preprocessors={"refiners-preprocessors:canny": "0.1"})
    with pytest.warns(Notice, match=r"refiners-preprocessors:canny 0\.1 made the picture"):
        (part,) = find_pieces(msgspec.structs.replace(recipe, adapters=(record,))).parts
    assert part.condition["preprocess"] == "refiners-preprocessors:canny"


def test_what_is_taken_as_it_is_has_nothing_to_preprocess(model: Any, photo: Image.Image):
    with (
        refiners.load_adapter("ip-adapter").on(model) as prompt,
        pytest.raises(ConditionError, match="takes the picture as it is"),
    ):
        generate(model, {prompt: Condition(photo, preprocess=True)})


def test_a_hole_in_a_picture_is_filled_in(photo: Image.Image):
    structure = outline("sd15")
    inpaint = dress(structure, "controlnet-inpaint")
    seen: list[Any] = []
    inpaint.check = lambda value, request: seen.append(value)  # pyright: ignore
    cut = photo.convert("RGBA")
    cut.paste((0, 0, 0, 0), (0, 0, 32, 64))
    condition = Condition({"picture": photo, "mask": cut}, preprocess=True)
    structure.check("a heart", conditions={inpaint: condition}, size=64)
    pixels = inpaint.pixels(seen[0], (64, 64))
    assert (pixels[:, :, :, :32] == -1).all()
    assert (pixels[:, :, :, 32:] >= 0).all()


def test_the_shell_preprocesses_the_pictures_of_adapters(photo: Image.Image, tmp_path: Path):
    picture, out = tmp_path / "photo.png", tmp_path / "out.png"
    photo.save(picture)

    def run(*arguments: str) -> Any:
        options = ("--steps", "1", "--out", str(out), "--json")
        return CliRunner().invoke(main, ["generate", "a heart", *arguments, *options])

    made: list[bytes] = []
    for option in (("--preprocess",), ()):
        suffix = "" if option else ",preprocess=canny"
        result = run("--adapter", f"controlnet-canny={picture}{suffix}", *option)
        assert result.exit_code == 0, result.output
        (facts,) = json.loads(result.stdout)["adapters"]
        assert facts["preprocess"] == (True if option else "canny")
        made.append(Image.open(out).tobytes())
    assert made[0] == made[1]
    for wrong, words in (
        (("--preprocess", "--adapter", f"ip-adapter={picture}"), "no adapter of this command"),
        (("--adapter", f"ip-adapter={picture},preprocess=true"), "declares no preprocessor"),
        (("--adapter", f"controlnet-canny={picture},preprocess=cany"), "Did you mean 'canny'"),
        (("--adapter", f"controlnet-canny={picture},preprocess=1"), "preprocess is true or a name"),
    ):
        result = run(*wrong)
        assert result.exit_code == 2
        assert words in json.dumps(json.loads(result.stdout)["error"])


def test_the_shell_makes_a_control_picture(photo: Image.Image, tmp_path: Path):
    picture, out = tmp_path / "photo.png", tmp_path / "edges.png"
    photo.save(picture)
    command = ["preprocess", "canny,low=20,high=60", str(picture), "--out", str(out)]
    result = CliRunner().invoke(main, [*command, "--size", "48x32", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["options"] == {"low": 20, "high": 60}
    wanted = refiners.load_preprocessor("canny", low=20, high=60)(photo, size=(48, 32))
    assert Image.open(out).tobytes() == wanted.tobytes()
    for name, words in (
        ("cany", "Did you mean 'canny'"),
        ("canny,lo=20", "Did you mean low"),
        ("canny,low=-1", "low is a number in 0...2040"),
        ("openpose", "keypoints are drawn from an array"),
    ):
        result = CliRunner().invoke(main, ["preprocess", name, str(picture), "--json"])
        assert result.exit_code == 2
        assert words in json.dumps(json.loads(result.stdout)["error"])


@pytest.mark.parametrize(
    "size", [64, "64x64", (0, 5), (-1, 4), (3.5, 4), (8,), (True, 8), (4, 10**6)]
)
@pytest.mark.parametrize("name", ["canny", "inpaint_mask", "draw_keypoints"])
def test_a_size_is_two_sides_in_pixels(name: str, size: Any):
    value = torch.full((1, 18, 2), 0.5) if name == "draw_keypoints" else Image.new("RGB", (8, 8))
    with pytest.raises(ConditionError, match="size is a width and a height in 1"):
        getattr(refiners_preprocessors, name)(value, size=size)
