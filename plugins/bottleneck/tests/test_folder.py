"""Folders of AdapterHub are read as they were written, or refused by name."""

import json
import pickle
from collections.abc import Callable, Mapping
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import refiners
import torch
from refiners_bottleneck.adapter import Bottleneck
from refiners_bottleneck.fusion import Fusion, fuse
from safetensors.torch import load_file, save_file
from torch import Tensor

from refiners_core.errors import AdapterError, Notice, RefinersError
from refiners_core.models.decoder import LanguageModel
from refiners_core.testing import tiny_language_model, tiny_model

Tensors = dict[str, Tensor]
IDS = torch.tensor([[1, 2, 3, 4]])


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_language_model(ends=())


@torch.no_grad()
def logits(model: LanguageModel) -> Tensor:
    scales = {adapter.scale_key: torch.tensor(1.0) for adapter in model.adapters}
    return model.decoder(IDS, context=scales)


def randomised(adapter: Any, model: LanguageModel) -> Any:
    adapter.inject(model)
    for weight in adapter.parameters():
        weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    return adapter


def written(model: LanguageModel, folder: Path, **options: Any) -> Tensor:
    """Writes a folder and returns the logits of the model with its adapter."""
    form: dict[str, Any] = {"config": "seq_bn", "reduction_factor": 4, **options}
    adapter = randomised(Bottleneck(**form), model)
    adapter.save(folder)
    result = logits(model)
    adapter.eject()
    return result


@pytest.mark.parametrize(
    "config",
    ["seq_bn", "double_seq_bn", "scaled_par_bn", "compacter", "compacter++", "adapter_plus"],
)
def test_what_is_saved_is_read_again(config: str, model: LanguageModel, tmp_path: Path):
    theirs = written(model, tmp_path / "a", config=config)
    adapter = refiners.load_adapter(str(tmp_path / "a"), model)
    assert torch.equal(logits(model), theirs)
    adapter.save(tmp_path / "b")
    adapter.eject()
    first, second = (load_file(tmp_path / x / "adapter.safetensors") for x in "ab")
    assert len(first) == len(second)
    assert all(torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True))


def test_a_fusion_that_is_saved_is_read_again(model: LanguageModel, tmp_path: Path):
    fusion = randomised(fuse(Bottleneck(key="a"), Bottleneck(key="b")), model)
    theirs = logits(model)
    fusion.eject()
    for member in fusion.members:
        member.save(tmp_path / member.key)
    fusion.save(tmp_path / "fusion")
    members = [refiners.load_adapter(str(tmp_path / key)) for key in ("a", "b")]
    again = refiners.load_adapter(str(tmp_path / "fusion"), model, adapters=members)
    assert torch.equal(logits(model), theirs)
    again.eject()


def changed(
    folder: Path,
    config: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
    tensors: Callable[[Tensors], Tensors] | None = None,
) -> None:
    """Rewrites parts of a folder."""
    path = folder / "adapter_config.json"
    fields = json.loads(path.read_text())
    if config:
        fields["config"].update(config)
    fields.update(about or {})
    path.write_text(json.dumps({key: value for key, value in fields.items() if value != "absent"}))
    if tensors is not None:
        weights = folder / "adapter.safetensors"
        save_file(tensors(load_file(weights)), weights)


def lora(tensors: Tensors) -> Tensors:
    start = "model.layers.0.self_attn.q_proj.loras.x.lora_"
    return {f"{start}A": torch.ones(2, 16), f"{start}B": torch.ones(16, 2)}


def prefix(tensors: Tensors) -> Tensors:
    return {"model.prefix_tuning.prefix_tunings.x.wte.weight": torch.ones(2, 16)}


def moved(tensors: Tensors) -> Tensors:
    return {key.replace("layers.1", "layers.7"): value for key, value in tensors.items()}


def shorter(tensors: Tensors) -> Tensors:
    return {key: value for key, value in tensors.items() if "layers.1" not in key}


def more(name: str, *shape: int) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: torch.ones(shape)}


REFUSED: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "another family": (
        {"about": {"model_type": "bert", "model_name": "bert-base-uncased"}},
        r"trained on bert \(bert-base-uncased\); this model is llama",
    ),
    "another width": ({"about": {"hidden_size": 64}}, "of 64 features; this llama has 16"),
    "more layers": (
        {"tensors": moved},
        "with 8 layers or more; this llama has 2",
    ),
    "a missing layer": (
        {"tensors": shorter},
        "4 missing",
    ),
    "left out, but there": ({"config": {"leave_out": [0]}}, "4 not expected"),
    "another place": ({"config": {"output_adapter": False}}, "8 not expected"),
    "another reduction": ({"config": {"reduction_factor": 8}}, r"\[4, 16\], wanted \[2, 16\]"),
    "reductions without a layer": (
        {"config": {"reduction_factor": {"0": 4}}}, 'without layer 1 and without "default"'
    ),
    "an unknown field": ({"config": {"new_field": 3}}, "the field new_field = 3"),
    "an invertible adapter": ({"config": {"inv_adapter": "nice"}}, "inv_adapter = 'nice'"),
    "an older one": ({"config": {"invertible_adapter": {"block_type": "nice"}}}, "invertible"),
    "an activation": ({"config": {"non_linearity": "xielu"}}, "non_linearity = 'xielu'"),
    "a flag": ({"config": {"ln_after": "yes"}}, "ln_after = 'yes'; it can be true or false"),
    "a scaling": ({"config": {"scaling": "much"}}, "scaling = 'much'"),
    "a list of layers": ({"config": {"leave_out": ["0"]}}, "leave_out = "),
    "a PHM of rank 0": ({"config": {"phm_rank": 0}}, "phm_rank = 0"),
    "another residual": ({"config": {"residual_before_ln": 2}}, "residual_before_ln = 2"),
    "a LoRA": ({"tensors": lora}, "is a LoRA or IA3 .AdapterHub.: that method is not read"),
    "a LoRA by its architecture": (
        {"config": {"architecture": "lora"}}, "a LoRA or IA3 of AdapterHub"
    ),
    "a prefix": ({"tensors": prefix}, "is trained keys and values before a prompt .AdapterHub."),
    "a union with a prefix": (
        {"about": {"config": {"architecture": "union", "configs": [
            {"architecture": "prefix_tuning"}]}}},
        "is a union with a prefix of AdapterHub",
    ),
    "other parts": (
        {"tensors": more("model.invertible_adapters.x.F.0.weight", 4, 4)}, "with other parts"
    ),
    "another tensor": ({"tensors": more("model.layers.0.extra", 4)}, "holds the tensor 'model"),
    "two adapters": (
        {"tensors": more("model.layers.0.output_adapters.adapters.z.adapter_up.weight", 16, 4)},
        "holds 2 adapters",
    ),
    "a configuration by an unknown name": ({"about": {"config": "wide"}}, "'wide' is not a bottl"),
    "no configuration": ({"about": {"config": None}}, "config = None, not a table"),
    "another file": ({"about": {"config": "absent"}}, "has no field 'config'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_not_followed_is_refused_by_name(fault: str, model: LanguageModel, tmp_path: Path):
    changes, message = REFUSED[fault]
    bare = logits(model)
    written(model, tmp_path)
    changed(tmp_path, **changes)
    with pytest.raises(RefinersError, match=message) as error:
        refiners.load_adapter(str(tmp_path), model)
    assert error.value.hint
    assert torch.equal(logits(model), bare)


def test_the_width_of_the_tensors_shows_in_the_header(model: LanguageModel, tmp_path: Path):
    written(tiny_language_model(ends=(), width=32, head_width=8), tmp_path)
    with pytest.raises(RefinersError, match=r"a bottleneck adapter .*\n.* width = 32, not 16"):
        refiners.load_adapter(str(tmp_path), model)


def test_a_file_without_its_configuration_is_refused(model: LanguageModel, tmp_path: Path):
    written(model, tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(RefinersError, match=r"adapter_config.json is not beside it. Give the fol"):
        refiners.load_adapter(str(tmp_path / "adapter.safetensors"), model)


@pytest.mark.parametrize("given", ["", "pytorch_adapter.bin"])
def test_pickles_are_refused_and_the_hint_rewrites_them(
    given: str, model: LanguageModel, tmp_path: Path
):
    theirs = written(model, tmp_path)
    path = tmp_path / "pytorch_adapter.bin"
    torch.save(load_file(tmp_path / "adapter.safetensors"), path)
    (tmp_path / "pytorch_model_head.bin").write_bytes(pickle.dumps({}))
    (tmp_path / "adapter.safetensors").unlink()
    with pytest.raises(RefinersError, match=r"pytorch_adapter.bin is a pickle") as error:
        refiners.load_adapter(str(tmp_path / given), model)
    call = str(error.value.hint).partition("once: ")[2].rstrip(".")
    digest = sha256(path.read_bytes()).hexdigest()
    exec(
        call.replace("sha256=...", f"sha256={digest!r}"),
        {"refiners_core": import_module("refiners_core")},
    )
    adapter = refiners.load_adapter(str(tmp_path / given), model)
    assert torch.equal(logits(model), theirs)
    adapter.eject()


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_wrappers_of_training_do_not_hide_tensors(
    prefix: str, model: LanguageModel, tmp_path: Path
):
    theirs = written(model, tmp_path)

    def renamed(tensors: Tensors) -> Tensors:
        inside = {k.replace("layers.1.", f"layers.1.{prefix}"): v for k, v in tensors.items()}
        return {f"{prefix}{key}": value for key, value in inside.items()}

    changed(tmp_path, tensors=renamed)
    adapter = refiners.load_adapter(str(tmp_path), model)
    assert torch.equal(logits(model), theirs)
    adapter.eject()


def test_a_head_is_not_read_and_a_notice_says_so(model: LanguageModel, tmp_path: Path):
    theirs = written(model, tmp_path)
    save_file({"lm_head.weight": torch.ones(2, 16)}, tmp_path / "model_head.safetensors")
    with pytest.warns(Notice, match="saved with a head, which is not read"):
        adapter = refiners.load_adapter(str(tmp_path), model)
    assert torch.equal(logits(model), theirs)
    adapter.eject()


def test_folders_without_a_version_have_older_names(model: LanguageModel, tmp_path: Path):
    named = {}
    for name, version in (("gelu", "absent"), ("gelu_new", "1"), ("gelu", "1")):
        folder = tmp_path / f"{name}-{version}"
        written(model, folder)
        changed(folder, {"non_linearity": name}, {"version": version})
        adapter = refiners.load_adapter(str(folder), model)
        named[name, version] = logits(model)
        adapter.eject()
    assert torch.equal(named["gelu", "absent"], named["gelu_new", "1"])
    assert not torch.equal(named["gelu", "absent"], named["gelu", "1"])


def test_a_configuration_may_be_a_name_or_several(model: LanguageModel, tmp_path: Path):
    theirs = written(model, tmp_path, reduction_factor=16)
    changed(tmp_path, about={"config": "seq_bn"})
    adapter = refiners.load_adapter(str(tmp_path), model)
    assert torch.equal(logits(model), theirs)
    adapter.eject()
    form = {"original_ln_before": True, "reduction_factor": 16}
    parts = [
        {"mh_adapter": False, "output_adapter": True, "leave_out": [i], **form} for i in (0, 1)
    ]
    changed(tmp_path, about={"config": {"architecture": "union", "configs": parts}})
    adapter = refiners.load_adapter(str(tmp_path), model)
    assert torch.equal(logits(model), theirs)
    with pytest.raises(AdapterError, match="several configurations"):
        adapter.save(tmp_path / "again")
    adapter.eject()


def test_an_interface_that_puts_bottlenecks_elsewhere_is_refused(
    model: LanguageModel, tmp_path: Path
):
    written(model, tmp_path)
    usual = {
        "attn_o_proj": "o_proj", "layer_output_proj": "mlp.down_proj",
        "layer_pre_self_attn": "input_layernorm", "layer_pre_ffn": "post_attention_layernorm",
    }  # fmt: skip
    path = tmp_path / "adapter_interface.json"
    path.write_text(json.dumps({"interface": usual}))
    refiners.load_adapter(str(tmp_path), model).eject()
    path.write_text(json.dumps({"interface": {**usual, "layer_output_proj": "mlp"}}))
    with pytest.raises(RefinersError, match="layer_output_proj = mlp"):
        refiners.load_adapter(str(tmp_path), model)


def test_options_for_untrained_adapters_contradict_a_folder(model: LanguageModel, tmp_path: Path):
    written(model, tmp_path)
    with pytest.raises(AdapterError, match="Leave config= and reduction_factor= out"):
        refiners.load_adapter(str(tmp_path), model, reduction_factor=4)


def test_other_models_are_refused():
    with pytest.raises(RefinersError, match=r"goes on a language model, not on sd15"):
        Bottleneck().inject(tiny_model())
    with pytest.raises(AdapterError, match="was not on a model yet"):
        Bottleneck().save("nowhere")


FUSED: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "temperature": ({"temperature": True}, "temperature = True, which is not followed"),
    "an unknown field": ({"new_field": 1}, "new_field = 1"),
    "another flag": ({"key": 3}, "key = 3"),
    "another form": ({"value": False}, "2 not expected"),
}


@pytest.mark.parametrize("fault", FUSED)
def test_a_fusion_follows_its_fields_or_refuses_them(
    fault: str, model: LanguageModel, tmp_path: Path
):
    changes, message = FUSED[fault]
    fusion = fuse(Bottleneck(key="a"), Bottleneck(key="b")).inject(model).eject()
    fusion.save(tmp_path)
    path = tmp_path / "adapter_fusion_config.json"
    fields = json.loads(path.read_text())
    fields["config"].update(changes)
    path.write_text(json.dumps(fields))
    with pytest.raises(RefinersError, match=message):
        refiners.load_adapter(str(tmp_path), model, adapters=[*fusion.members])


def test_a_fusion_needs_adapters_of_one_form_that_are_not_worn(model: LanguageModel):
    a, b = Bottleneck(key="a"), Bottleneck(key="b")
    for adapters in ([], [a], [a, a], ["./a", "./b"]):
        with pytest.raises(AdapterError, match=r"fuses two or more bottleneck adapters"):
            Fusion(adapters=adapters)
    with a.on(model), pytest.raises(AdapterError, match="runs the networks of a itself"):
        fuse(a, b).inject(model)
    with pytest.raises(AdapterError, match="is_parallel is False in a and True in par"):
        fuse(a, Bottleneck(config="par_bn", key="par")).inject(model)
    with pytest.raises(AdapterError, match="act after different layers"):
        fuse(a, Bottleneck(config="double_seq_bn", key="double")).inject(model)
    assert not model.adapters
