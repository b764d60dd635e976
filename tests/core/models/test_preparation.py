"""Conditions that are made from photos: which preprocessor runs, on what, and when."""

import copy

import pytest
import torch
from PIL import Image

from refiners_core import Adapter, Condition, NamedPreprocessor, Sum
from refiners_core.errors import ConditionError, GenerationError
from refiners_core.models.diffusion.preparation import prepare
from refiners_core.picture import to_pixels

PHOTO = Image.new("RGB", (20, 12), "red")


class Reads(Adapter):
    """Keeps the values that it is given, and refuses colours as networks of one channel do."""

    takes_condition = True

    def __init__(self, **options):
        super().__init__(**options)
        self.checked, self.encoded = [], []

    def edits(self, model):
        return model.slot("unet.conv_in").wrap(lambda inner, seat: Sum(inner))

    def check(self, value, request):
        self.checked.append(value)
        for item in value.values() if isinstance(value, dict) else [value]:
            pixels = to_pixels(item)
            if (pixels != pixels[:, :1]).any():
                raise ConditionError("only grey pictures.")

    def encode(self, value, request):
        self.encoded.append(value)
        value = value["picture"] if isinstance(value, dict) else value
        return {self.context_key("seen"): {"cond": to_pixels(value, (2, 2))}}


class ReadsTwo(Reads):
    inputs = ("picture", "mask")


class Preprocessors:
    """Finds preprocessors by name, as a registry does, and counts how often each ran."""

    def __init__(self, declared, heavy=()):
        self.declared, self.heavy, self.runs, self.loads = declared, heavy, [], []

    def __call__(self, role, name=""):
        if role not in self.declared:
            return None
        chosen = name or self.declared[role]
        return NamedPreprocessor(chosen, lambda: self.load(chosen), chosen in self.heavy)

    def load(self, name):
        self.loads.append(name)

        def preprocess(value, *, size=None):
            self.runs.append((name, value, size))
            return Image.new("L", size, len(name))

        return preprocess


def worn(model, declared, heavy=(), kind=Reads):
    adapter = kind(key="reads").inject(model)
    adapter.preprocessors = Preprocessors(declared, heavy)
    return adapter


def generate(model, condition, **more):
    (adapter,) = model.adapters
    arguments = {"steps": 2, "seed": 1, "output": "latents", "progress": False, **more}
    return model.generate("a", conditions={adapter: condition}, **arguments)


def test_the_declared_preprocessor_makes_the_value_at_the_size_of_the_picture(model):
    adapter = worn(model, {"": "canny"})
    generate(model, Condition(PHOTO, preprocess=True), size=(48, 32))
    assert adapter.preprocessors.runs == [("canny", PHOTO, (48, 32))]
    (value,) = adapter.encoded
    assert (value.size, value.getpixel((0, 0))) == ((48, 32), 5)
    assert adapter.checked == [value]


def test_a_value_is_used_as_it_is_by_default(model):
    adapter = worn(model, {"": "canny"})
    grey = PHOTO.convert("L")
    generate(model, Condition(grey))
    generate(model, grey)
    assert adapter.encoded == [grey, grey]
    assert adapter.preprocessors.runs == []


def test_a_name_or_a_function_takes_the_place_of_the_declared_one(model):
    adapter = worn(model, {"": "canny"})
    generate(model, Condition(PHOTO, preprocess="blur"))
    generate(model, Condition(PHOTO, preprocess=lambda value, size: Image.new("L", size, 99)))
    assert [value.getpixel((0, 0)) for value in adapter.encoded] == [4, 99]
    assert [name for name, *_ in adapter.preprocessors.runs] == ["blur"]


@pytest.mark.parametrize("values", [[PHOTO, PHOTO], torch.rand(2, 3, 8, 8)])
def test_each_picture_of_several_is_preprocessed(model, values):
    adapter = worn(model, {"": "canny"})
    generate(model, Condition(values, preprocess=True), count=2)
    assert len(adapter.encoded[0]) == len(adapter.preprocessors.runs) == 2
    with pytest.raises(ConditionError, match="given 2 values for 1 picture"):
        generate(model, Condition(values, preprocess=True))


def test_of_several_inputs_those_with_a_preprocessor_are_made(model):
    adapter = worn(model, {"mask": "mask"}, kind=ReadsTwo)
    grey = PHOTO.convert("L")
    generate(model, Condition({"picture": grey, "mask": PHOTO}, preprocess=True))
    (value,) = adapter.encoded
    assert value["picture"] is grey
    assert value["mask"].getpixel((0, 0)) == 4


def test_a_network_runs_only_in_the_generation_itself(model):
    adapter = worn(model, {"": "depth"}, heavy=["depth"])
    condition = Condition(PHOTO, preprocess=True)
    model.check("a", conditions={adapter: condition})
    with pytest.raises(GenerationError, match="preview is a function"):
        generate(model, condition, preview=3)
    assert (adapter.preprocessors.loads, adapter.preprocessors.runs) == ([], [])
    assert adapter.checked[0].size == (32, 32)  # a blank picture
    generate(model, condition)
    assert adapter.preprocessors.runs == [("depth", PHOTO, (32, 32))]
    assert adapter.checked[-1] is adapter.encoded[0]
    assert adapter.encoded[0].getpixel((0, 0)) == 5


def test_what_a_network_makes_is_checked_as_well(model):
    adapter = worn(model, {"": "depth"})
    red = Condition(PHOTO, preprocess=lambda value, size: value)
    model.check("a", conditions={adapter: red})
    with pytest.raises(ConditionError, match="only grey"):
        generate(model, red)


def test_nothing_is_preprocessed_while_the_adapter_is_off(model):
    adapter = worn(model, {"": "canny"})
    generate(model, Condition(PHOTO, scale=0, preprocess=True))
    assert adapter.preprocessors.runs == []


@pytest.mark.parametrize(
    ("declared", "value", "preprocess", "message", "hint"),
    [
        ({}, PHOTO, True, "declares no preprocessor", "Leave preprocess= out."),
        (None, PHOTO, True, "was not loaded by name", "preprocess=function"),
        (None, PHOTO, "canny", "was not loaded by name", "preprocess=function"),
        ({"mask": "mask"}, {"picture": 1, "mask": 2}, len, "several inputs", "Apply it before"),
    ],
)
def test_what_cannot_be_preprocessed_is_refused(model, declared, value, preprocess, message, hint):
    adapter = worn(model, declared, kind=ReadsTwo if isinstance(value, dict) else Reads)
    if declared is None:
        adapter.preprocessors = None
    with pytest.raises(ConditionError, match=message) as error:
        generate(model, Condition(value, preprocess=preprocess))
    assert hint in error.value.hint


def test_an_adapter_without_a_value_has_nothing_to_preprocess(model):
    class Plain(Adapter):
        def edits(self, model):
            return model.slot("unet.conv_in").wrap(lambda inner, seat: Sum(inner))

    Plain(key="plain").inject(model)
    with pytest.raises(ConditionError, match="plain takes no value"):
        generate(model, Condition(preprocess=True))


@pytest.mark.parametrize("preprocess", [None, 1, "", ["canny"]])
def test_preprocess_is_a_choice_a_name_or_a_function(preprocess):
    with pytest.raises(ConditionError, match="is True, a name or a function"):
        Condition(PHOTO, preprocess=preprocess)


def test_a_copy_of_an_adapter_leaves_the_registry_behind():
    adapter = Reads(key="reads")
    adapter.preprocessors = Preprocessors({"": "canny"})
    assert copy.deepcopy(adapter).preprocessors is None


def test_an_input_with_a_scale_may_name_its_own_preprocessor(model):
    adapter = worn(model, {"picture": "canny", "mask": "hole"}, kind=ReadsTwo)
    value = {"picture": Condition(PHOTO, scale=0.5, preprocess=True), "mask": PHOTO.convert("L")}
    seen = prepare(adapter, Condition(value), (20, 12)).value
    assert adapter.preprocessors.runs == [("canny", PHOTO, (20, 12))]
    assert (seen["picture"].scale, seen["picture"].preprocess) == (0.5, False)
    assert seen["picture"].value.getpixel((0, 0)) == len("canny")
    assert seen["mask"] is value["mask"]
    prepare(adapter, Condition(value, preprocess="blur"), (20, 12))
    assert [name for name, *_ in adapter.preprocessors.runs[1:]] == ["canny", "blur"]


def test_an_input_that_is_left_out_is_not_preprocessed(model):
    adapter = worn(model, {"picture": "canny", "mask": "hole"}, kind=ReadsTwo)
    value = {"picture": PHOTO, "mask": None}
    assert prepare(adapter, Condition(value, preprocess=True), (20, 12)).value["mask"] is None
    assert [name for name, *_ in adapter.preprocessors.runs] == ["canny"]


def test_a_function_that_takes_no_size_is_refused_before_anything_runs(model):
    worn(model, {"": "canny"})
    with pytest.raises(ConditionError, match=r"size=\(width, height\), which it does not take"):
        generate(model, Condition(PHOTO, preprocess=lambda picture: picture))
