import pytest
from refiners.errors import OptionError, RefinersError, UnknownNameError
from refiners_train.evaluate.plan import planned
from refiners_train.evaluate.result import Part

INK = Part("lora-ink", "lora-ink")


def test_an_adapter_is_measured_by_the_measure_of_its_name():
    plan = planned(["lora-ink", "playground"], "", "")
    assert plan.groups == ((INK,), (Part("playground", ""),))


def test_adapters_joined_by_a_plus_are_measured_alone_first():
    plan = planned(["palette+lora-ink", "lora-ink"], "", "")
    palette = Part("palette", "palette")
    assert plan.alone == ((palette,), (INK,))
    assert plan.together == ((palette, INK),)


def test_a_file_and_an_adapter_without_a_measure_are_measured_like_another():
    assert planned(["./mine.safetensors"], "lora-ink", "").groups == (
        (Part("lora-ink", "./mine.safetensors"),),
    )
    assert planned(["freeu"], "lora-ink", "").groups == ((Part("lora-ink", "freeu"),),)


def test_a_file_whose_name_has_a_plus_is_one_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a+b.safetensors").touch()
    (group,) = planned(["a+b.safetensors"], "lora-ink", "").groups
    assert group == (Part("lora-ink", "a+b.safetensors"),)


@pytest.mark.parametrize(
    ("names", "like", "kind", "words"),
    [
        (["lora-inkk"], "", UnknownNameError, "Did you mean 'lora-ink'"),
        (["freeu"], "", UnknownNameError, "no package measures the adapter 'freeu'"),
        (["./mine.safetensors"], "", OptionError, "nothing says how to measure it"),
        (["./mine.safetensors"], "lora-inkk", UnknownNameError, "Did you mean 'lora-ink'"),
        (["palette+playground"], "", OptionError, "playground is a measure of a model"),
        (["palette+palette"], "", OptionError, "names an adapter twice"),
    ],
)
def test_what_leads_to_no_measure_is_refused(names, like, kind, words):
    with pytest.raises(kind, match=words):
        planned(names, like, "")


def test_without_names_all_measures_of_a_base_are_run_and_broken_ones_noted(monkeypatch):
    import refiners

    real = refiners.load_measure

    def load(name):
        if name.endswith(":palette"):
            raise RefinersError("it is broken.")
        return real(name)

    monkeypatch.setattr(refiners, "load_measure", load)
    plan = planned([], "", "playground")
    names = {part.measure for (part,) in plan.groups}
    assert {"playground", "lora-ink", "controlnet-canny"} <= names
    assert not {"palette", "writer-green"} & names
    (fault,) = plan.faults
    assert (fault.adapter, fault.what) == ("refiners-playground:palette", "it is broken.")
    assert "writer-green" in {part.measure for (part,) in planned([], "", "").groups}
