"""Files that cannot be followed to the letter are refused, with what to do."""

from pathlib import Path
from typing import Any

import pytest
import refiners
import torch
from refiners.errors import PolicyError, RefinersError
from refiners_peft.vera import Vera

from refiners_core.errors import AdapterError, Notice
from refiners_core.testing import tiny_model

from .published import IDS, METHODS, contents, language_model, layer, logits, published, save, worn

Q = layer(0, "self_attn.q_proj", "vera_lambda_b")
NORM = "base_model.model.model.norm.ln_tuning_layers"
DOWN = "mlp.down_proj.fourierft_spectrum"


def without(part: str) -> Any:
    return lambda tensors: {key: x for key, x in tensors.items() if part not in key}


def renamed(old: str, new: str) -> Any:
    return lambda tensors: {key.replace(old, new): x for key, x in tensors.items()}


def having(key: str, *size: int) -> Any:
    return lambda tensors: tensors | {key: torch.randn(size)}


TENSORS = {
    "layers of a larger model": ("vera", renamed("layers.1.", "layers.7."), "it has 2 layers"),
    "layers of another family": ("fourier-ft", renamed(".q_proj", ".qkv"), "linear layers: it has"),
    "a wider layer": ("vera", having(Q, 99), "has 99 numbers as vera_lambda_b .* needs 16"),
    "narrow matrices": ("vera", having("base_model.vera_A", 4, 8), "needs \\[4, 24\\]"),
    "matrices of another rank": ("vera", having("base_model.vera_B", 258, 3), "rank 4 in this"),
    "one matrix": ("vera", without("vera_A"), "no base_model.vera_A, though"),
    "half of a layer": ("vera", without(Q), "has vera_lambda_d, but no vera_lambda_b"),
    "matrices alone": (
        "vera",
        without("lambda"),
        "base_model.vera_A",
    ),
    "a bias of a norm without one": ("ln-tuning", having(f"{NORM}.bias", 16), "'model.norm.bias'"),
    "a bias alone": ("ln-tuning", renamed("weight", "bias"), "has bias, but no weight"),
    "a linear layer as a norm": (
        "ln-tuning",
        renamed("input_layernorm", "self_attn.q_proj"),
        "norm layers: it has model.layers.0.input_layernorm",
    ),
    "another number of frequencies": (
        "fourier-ft",
        having(layer(1, "mlp.down_proj", "fourierft_spectrum"), 8),
        "has 8 frequencies for 'model.layers.1.mlp.down_proj'; its configuration has 9",
    ),
    "keys of other heads": ("prefix-tuning", having("prompt_embeddings", 3, 64), "16 features in"),
    "learned tokens of three axes": (
        "prefix-tuning",
        having("prompt_embeddings", 3, 2, 16),
        "3, 2",
    ),
    "features of a wider model": (
        "prompt-tuning",
        having("prompt_embeddings", 3, 64),
        "width = 64",
    ),
    "a head beside learned tokens": (
        "prompt-tuning",
        having("base_model.model.lm_head.weight", 4, 4),
        "another lm_head.weight than this model, \\[4, 4\\] for \\[258, 16\\]",
    ),
    "a head beside changes": (
        "vera",
        having("base_model.model.lm_head.base_layer.weight", 258, 16),
        "has another lm_head.weight than this model",
    ),
    "a classifier": (
        "ln-tuning",
        having("base_model.model.score.weight", 2, 16),
        "has a tensor 'score.weight', which LN_TUNING does not have",
    ),
    "two adapters": (
        "fourier-ft",
        lambda tensors: {f"{key}.{name}": x for key, x in tensors.items() for name in "ab"},
        "two tensors fourierft_spectrum for",
    ),
    "NaN": (
        "vera",
        lambda tensors: tensors | {Q: torch.full((16,), float("nan"))},
        "does not have finite numbers alone",
    ),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_do_not_fit_are_refused(case: str, tmp_path: Path):
    method, change, match = TENSORS[case]
    tensors, config = contents(method)
    model = language_model()
    bare = logits(model, IDS)
    folder = save(tmp_path / "style", change(tensors), config)
    with pytest.raises(RefinersError, match=match):
        refiners.load_adapter(str(folder), model)
    assert not model.adapters
    assert torch.equal(logits(model, IDS), bare)


FIELDS = {
    "modules_to_save": (METHODS, ["lm_head"], "modules_to_save = .* not followed"),
    "bias": (("vera", "fourier-ft"), "all", "bias = 'all' .* not followed"),
    "use_something_new": (METHODS, True, "use_something_new = True .* not followed"),
    "num_transformer_submodules": (METHODS[:2], 2, "for 2 transformers"),
    "num_virtual_tokens": (METHODS[:2], 7, "and 7 tokens in its configuration"),
    "num_layers": (METHODS[:1], 24, "for 24 layers; this model has 2. It was trained on tiny"),
    "scaling": (("fourier-ft",), None, "has scaling = None"),
    "random_loc_seed": (("fourier-ft",), None, "has random_loc_seed = None"),
}


@pytest.mark.parametrize(
    ("field", "method"), [(field, method) for field in FIELDS for method in FIELDS[field][0]]
)
def test_fields_that_are_not_followed_are_refused_by_name(field: str, method: str, tmp_path: Path):
    tensors, config = contents(method)
    folder = save(tmp_path, tensors, config | {field: FIELDS[field][1]})
    with pytest.raises(RefinersError, match=FIELDS[field][2]):
        refiners.load_adapter(str(folder), language_model())


@pytest.mark.parametrize("method", METHODS)
def test_fields_that_change_nothing_are_passed_over(method: str, tmp_path: Path):
    tensors, config = contents(method)
    neutral = {"modules_to_save": None, "use_something_new": False, "inference_mode": True}
    refiners.load_adapter(str(save(tmp_path, tensors, config | neutral)), language_model())


def test_what_only_the_configuration_tells_needs_it(tmp_path: Path):
    model = language_model()
    tensors, config = contents("vera")
    seeded = {key: x for key, x in tensors.items() if "base_model.vera" not in key}
    lacking = {k: v for k, v in config.items() if k != "projection_prng_key"}
    for name, given, fields, match in (
        ("vera", seeded, lacking | {"save_projection": False}, "has no projection_prng_key"),
        ("fourier-ft", contents("fourier-ft")[0], None, "no adapter_config.json .* its scaling"),
        ("prefix-tuning", contents("prefix-tuning")[0], None, "adapter_config.json"),
    ):
        folder = save(tmp_path / name, given, fields)
        with pytest.raises(RefinersError, match=match):
            refiners.load_adapter(str(folder), model)


@pytest.mark.parametrize("kind", ["MULTITASK_PROMPT_TUNING", "CPT", "CARTRIDGE"])
def test_methods_of_the_same_key_are_told_apart(kind: str, tmp_path: Path):
    tensors, config = contents("prompt-tuning")
    folder = save(tmp_path, tensors, config | {"peft_type": kind})
    with pytest.raises(RefinersError, match=f"{kind}\\): only "):
        refiners.load_adapter(str(folder), language_model())


def test_p_tuning_is_read_as_a_prompt(tmp_path: Path):
    model = language_model()
    tensors, config = contents("prompt-tuning")
    folder = save(tmp_path, tensors, config | {"peft_type": "P_TUNING", "encoder_dropout": 0.1})
    adapter = refiners.load_adapter(str(folder), model)
    assert adapter.name == "prompt-tuning"
    adapter.eject()
    file = str(folder / "adapter_model.safetensors")
    assert refiners.load_adapter("p-tuning", model, file=file).tokens_before == 3


def test_a_pattern_that_matches_no_layer_draws_a_notice(tmp_path: Path):
    tensors, config = contents("fourier-ft")
    folder = save(tmp_path, tensors, config | {"n_frequency_pattern": {"layers.0": 5}})
    with pytest.warns(Notice, match="5 frequencies for 'layers.0'"):
        refiners.load_adapter(str(folder), language_model())


def test_pickles_and_damaged_configurations_are_refused(tmp_path: Path):
    folder = published("vera", tmp_path)
    (folder / "adapter_config.json").write_text("[1]")
    with pytest.raises(RefinersError, match="is not a JSON object"):
        refiners.load_adapter(str(folder), language_model())
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(PolicyError, match="is a pickle"):
        refiners.load_adapter(str(folder), language_model())


@pytest.mark.parametrize("method", METHODS)
def test_weights_of_the_model_beside_an_adapter_are_passed_over(method: str, tmp_path: Path):
    model = language_model()
    tensors, config = contents(method)
    copies = {
        "lm_head.base_layer.weight": model.decoder.head.weight.detach(),
        "model.embed_tokens.weight": model.decoder.embed.weight.detach(),
    }
    more = {f"base_model.model.{name}": weight for name, weight in copies.items()}
    adapter = refiners.load_adapter(str(save(tmp_path / "a", tensors | more, config)), model)
    text = logits(model, IDS, adapter)
    adapter.eject()
    adapter = worn(method, tmp_path / "b", model)
    assert torch.equal(logits(model, IDS, adapter), text)


@pytest.mark.parametrize("method", METHODS)
def test_other_models_and_missing_files_are_refused(method: str, tmp_path: Path):
    with pytest.raises(RefinersError, match="does not have the slot decoder"):
        worn(method, tmp_path, tiny_model())  # pyright: ignore[reportArgumentType]
    with pytest.raises(RefinersError, match="file"):
        refiners.load_adapter(method, language_model())
    with pytest.raises(AdapterError, match="needs a file"):
        Vera(name="vera").inject(language_model())


def test_the_configuration_of_another_adapter_is_not_overwritten(tmp_path: Path):
    model = language_model()
    first, second = (worn(method, tmp_path / method, model) for method in METHODS[:2])
    path = tmp_path / METHODS[1] / "again.safetensors"
    with pytest.raises(AdapterError, match="configuration of another adapter"):
        first.save(path)
    assert not path.exists()
    second.save(path)
