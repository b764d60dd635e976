"""A LoRA of a language model keeps the contract, and reads the folders of PEFT as PEFT does."""

import json
import tomllib
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import refiners
import torch
from refiners_lora.adapter import Lora
from refiners_lora.peft_target import is_targeted, unmatched
from refiners_lora.rework import resize

from refiners_core import Source
from refiners_core.errors import AdapterError, Notice, WeightsError
from refiners_core.models.decoder import LanguageModel
from refiners_core.testing import LAWS, AdapterCase, tiny_language_model, tiny_model
from refiners_core.weights import read, write

PREFIX = "base_model.model."
Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
IDS = torch.tensor([[3, 7, 12, 40], [7, 9, 3, 200]])
model_of = partial(tiny_language_model, ends=())
GPT2: Mapping[str, Any] = {
    "family": "gpt2", "norm": "layer", "rope": None, "is_gated": False, "activation": "gelu-tanh",
    "kv_heads": 4, "is_tied": True, "has_qkv_bias": True, "has_output_bias": True,
    "has_inner_bias": True,
}  # fmt: skip


def pair(
    name: str, inputs: int = 16, outputs: int = 16, rank: int = 2, seed: int = 0
) -> dict[str, Any]:
    noise = torch.Generator().manual_seed(seed)
    return {
        f"{PREFIX}{name}.lora_A.weight": torch.randn(rank, inputs, generator=noise) * 0.3,
        f"{PREFIX}{name}.lora_B.weight": torch.randn(outputs, rank, generator=noise) * 0.3,
    }


def folder_of(tensors: Mapping[str, torch.Tensor], folder: Path, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    write(tensors, folder / "adapter_model.safetensors")
    fields = {"peft_type": "LORA", "r": 2, "lora_alpha": 5, **config}
    (folder / "adapter_config.json").write_text(json.dumps(fields))
    return folder


def logits(model: LanguageModel, *adapters: Lora, scale: float = 1.0) -> torch.Tensor:
    scales = {adapter.scale_key: torch.tensor(scale) for adapter in adapters}
    with torch.no_grad():
        return model.decoder(IDS, context=scales)


# --- the contract --------------------------------------------------------------------------------


@cache
def everything() -> Path:
    """Writes a folder that changes linear layers, the embedding, the head and a norm."""
    noise = torch.Generator().manual_seed(1)
    tensors = {
        **pair(Q),
        **pair(DOWN, 24),
        f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta": torch.randn(
            2, 16, generator=noise
        ),
        f"{PREFIX}lm_head.weight": torch.randn(258, 16, generator=noise),
        f"{PREFIX}model.norm.weight": torch.randn(16, generator=noise),
    }
    config = {"target_modules": ["0.self_attn.q_proj", "1.mlp.down_proj"]}
    return folder_of(tensors, Path(mkdtemp()), trainable_token_indices=[70, 97], **config)


def make() -> Lora:
    paths = {"weights": everything() / "adapter_model.safetensors"}
    return Lora(weights=lambda _: Source(paths), name="style")


def generated(model: LanguageModel, conditions: Mapping[Any, Any]) -> Any:
    results = model.generate(
        ["a red circle", "Fa"], conditions=conditions, max_new_tokens=3, output="scores"
    )
    return [part for result in results for part in (result.tokens, result.log_probabilities)]


def targets() -> list[tuple[str, str]]:
    manifest = tomllib.loads((files("refiners_lora") / "adapter.toml").read_text())
    variants = manifest["adapter"]["lora"]["variant"]
    (texts,) = [v for v in variants if v["targets"][0]["slot"].startswith("decoder.")]
    return [(target["slot"], target["stage"]) for target in texts["targets"]]


@pytest.mark.parametrize("law", LAWS)
def test_it_keeps_the_contract_on_a_language_model(law: Callable[[AdapterCase], None]):
    law(AdapterCase(make, model=model_of, run=generated, targets=targets()))


# --- files ---------------------------------------------------------------------------------------

SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "compiled": lambda key: key.replace(PREFIX, f"{PREFIX}_orig_mod."),
    "distributed": lambda key: f"module.{key}",
    "compiled blocks": lambda key: key.replace("layers.0.", "layers.0._orig_mod."),
    "checkpointed": lambda key: key.replace(".self_attn", "._checkpoint_wrapped_module.self_attn"),
    "the network alone": lambda key: key.replace(f"{PREFIX}model.", PREFIX),
    "with the name of the adapter": lambda key: key.replace("_A.", "_A.default."),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_words_of_wrappers_do_not_hide_a_layer(spelling: str, tmp_path: Path):
    model, rename = model_of(), SPELLINGS[spelling]
    clean = refiners.load_adapter(folder_of(pair(Q), tmp_path / "clean"), model)
    expected = logits(model, clean)
    clean.eject()
    renamed = {rename(key): tensor for key, tensor in pair(Q).items()}
    assert {*renamed} != {*pair(Q)}
    adapter = refiners.load_adapter(folder_of(renamed, tmp_path / "renamed"), model)
    assert torch.equal(logits(model, adapter), expected)
    assert not torch.equal(expected, logits(model))


def test_the_rows_of_a_fused_layer_are_its_shares(tmp_path: Path):
    model = model_of(**GPT2)
    fused = "transformer.h.1.attn.c_attn"
    bias = torch.randn(48)
    tensors = {**pair(fused, 16, 48), f"{PREFIX}{fused}.base_layer.bias": bias}
    adapter = refiners.load_adapter(
        folder_of(tensors, tmp_path, target_modules=["h.1.attn.c_attn"]), model
    )
    b = tensors[f"{PREFIX}{fused}.lora_B.weight"]
    base = model.decoder.blocks[1].attention.project
    for share, name in enumerate(("to_q", "to_k", "to_v")):
        change = adapter.own_layers[f"decoder/blocks/1/attention/project/{name}"]
        assert torch.equal(change["up"].weight, b[16 * share : 16 * (share + 1)])
        layer = getattr(base, name)
        assert torch.allclose(layer.bias + change.offset, bias[16 * share : 16 * (share + 1)])
    adapter.merge()
    assert torch.allclose(
        logits(model), logits(model.eject_all() and model, adapter.inject(model)), atol=1e-5
    )


def test_a_tied_head_follows_trained_tokens(tmp_path: Path):
    model = model_of(is_tied=True)
    key = f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta"
    rows = torch.full((2, 16), 0.25)
    ids = [200, 5]
    folder = folder_of({key: rows, **pair(Q)}, tmp_path, trainable_token_indices=ids)
    adapter = refiners.load_adapter(folder, model)
    context = {adapter.scale_key: torch.tensor(1.0)}
    embed, head = model.decoder.at("embed"), model.decoder.at("head")
    with torch.no_grad():
        assert torch.allclose(embed(torch.tensor(ids)[None], context=context)[0], rows)
        x = torch.randn(1, 3, 16)
        moved = head(x, context=context) - model.decoder.head(x)
    assert sorted({*moved.nonzero()[:, 2].tolist()}) == sorted(ids)


def test_a_head_that_is_saved_leaves_the_embedding_that_it_shares(tmp_path: Path):
    model = model_of(is_tied=True)
    before = model.decoder.embed.weight.clone()
    tensors = {f"{PREFIX}lm_head.weight": torch.randn(258, 16), **pair(Q)}
    adapter = refiners.load_adapter(folder_of(tensors, tmp_path), model)
    expected = logits(model, adapter)
    adapter.merge()
    assert torch.allclose(logits(model), expected, atol=1e-4)
    assert torch.equal(model.decoder.embed.weight, before)
    assert model.decoder.head.weight is model.decoder.embed.weight
    adapter.unmerge()
    assert torch.equal(logits(model, adapter), expected)


def test_two_adapters_of_which_one_is_merged_are_both_there(tmp_path: Path):
    model = model_of()
    first = refiners.load_adapter(folder_of(pair(Q), tmp_path / "a"), model)
    second = refiners.load_adapter(folder_of(pair(Q, seed=1), tmp_path / "b"), model)
    both = logits(model, first, second)
    first.merge()
    assert torch.allclose(logits(model, second), both, atol=1e-5)
    assert not torch.allclose(logits(model), both, atol=1e-3)


def test_a_copy_of_the_embedding_changes_nothing_and_another_is_refused(tmp_path: Path):
    model, name = model_of(), "model.embed_tokens"
    copy = {f"{PREFIX}{name}.base_layer.weight": model.decoder.embed.weight.detach().clone()}
    factors = {
        f"{PREFIX}{name}.lora_embedding_A": torch.randn(2, 258),
        f"{PREFIX}{name}.lora_embedding_B": torch.randn(16, 2),
    }
    adapter = refiners.load_adapter(folder_of({**factors, **copy}, tmp_path / "a"), model)
    assert len(adapter.own_layers) == 1
    adapter.eject()
    other = {key: weight + 1 for key, weight in copy.items()}
    folder = folder_of({**factors, **other}, tmp_path / "b", base_model_name_or_path="org/base")
    with pytest.raises(WeightsError, match=r"a copy of the layer's weight that differs.* org/base"):
        refiners.load_adapter(folder, model)


def test_a_row_of_zeros_has_no_magnitude(tmp_path: Path):
    model = model_of()
    layer = model.decoder.blocks[0].attention.project.to_q
    layer.weight.data[3] = 0
    tensors = {**pair(Q), f"{PREFIX}{Q}.lora_magnitude_vector": torch.ones(16)}
    tensors[f"{PREFIX}{Q}.lora_B.weight"][3] = 0
    adapter = refiners.load_adapter(folder_of(tensors, tmp_path, use_dora=True), model)
    context = {adapter.scale_key: torch.tensor(1.0)}
    rows = model.decoder.blocks[0].attention.project.at("to_q")(
        torch.randn(2, 5, 16), context=context
    )
    assert rows.isfinite().all()
    assert not rows[..., 3].any()
    assert rows[..., 2].any()


def test_a_mask_prunes_an_adaptive_lora_and_rank_0_changes_nothing(tmp_path: Path):
    model = model_of()
    a, b, e = torch.randn(3, 16), torch.randn(16, 3), torch.randn(3, 1)
    tensors = {
        f"{PREFIX}{Q}.lora_{half}": part for half, part in zip("ABE", (a, b, e), strict=True)
    }
    empty = {
        f"{PREFIX}{DOWN}.lora_A": torch.empty(0, 24),
        f"{PREFIX}{DOWN}.lora_B": torch.empty(16, 0),
        f"{PREFIX}{DOWN}.lora_E": torch.empty(0, 1),
    }
    config = {"peft_type": "ADALORA", "init_r": 4, "lora_alpha": 8, "target_modules": [Q, DOWN]}
    masks = {f"{Q}.lora_E": [True, False, True]}
    folder = folder_of({**tensors, **empty}, tmp_path, rank_pattern=masks, **config)
    adapter = refiners.load_adapter(folder, model)
    (change,) = adapter.own_layers.values()
    expected = b[:, ::2] @ (a * e)[::2] * 8 / (4 + 1e-5)
    assert torch.allclose(change.delta(model.decoder.embed.weight)["weight"], expected, atol=1e-5)


# --- the configuration ---------------------------------------------------------------------------

NAMES = [f"model.layers.{i}.self_attn.{x}_proj" for i in (0, 1) for x in "qk"]
PATTERNS = {
    "q_proj": 2,
    "^q_proj": 0,
    NAMES[0]: 1,
    f"^{NAMES[0]}": 1,
    ".*0.*q_proj": 1,
    "layers.0": 0,
    f"{PREFIX}{NAMES[0]}": 0,
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_matches_as_in_peft(pattern: str, tmp_path: Path):
    tensors = {
        key: part
        for name in NAMES
        for key, part in pair(name, 16, 16 if "q_" in name else 8).items()
    }
    folder = folder_of(tensors, tmp_path, alpha_pattern={pattern: 9})
    count = PATTERNS[pattern]
    lines = [*unmatched({"alpha_pattern": {pattern: 9}}, NAMES)]
    assert bool(lines) == (count == 0)
    model = model_of()
    if count:
        adapter = refiners.load_adapter(folder, model)
    else:
        with pytest.warns(Notice, match="in its alpha_pattern match no layer"):
            adapter = refiners.load_adapter(folder, model)
    alphas = [layer.alpha for layer in adapter.own_layers.values()]
    assert alphas.count(9) == count
    assert alphas.count(5) == 4 - count


TARGETS: Mapping[str, tuple[Mapping[str, Any], int]] = {
    "a list": ({"target_modules": ["q_proj"]}, 2),
    "a list is not an expression": ({"target_modules": [".*q_proj"]}, 0),
    "a text": ({"target_modules": "q_proj"}, 0),
    "an expression": ({"target_modules": ".*q_proj"}, 2),
    "all": ({"target_modules": "all-linear"}, 4),
    "a block": ({"target_modules": ["q_proj", "k_proj"], "layers_to_transform": 1}, 2),
    "blocks by a pattern": (
        {"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": "layers"},
        1,
    ),
    "without some": ({"target_modules": ["q_proj", "k_proj"], "exclude_modules": ".*0.*"}, 2),
    "without saved ones": (
        {"target_modules": ["q_proj", "k_proj"], "modules_to_save": ["q_proj"]},
        2,
    ),
}


@pytest.mark.parametrize("case", TARGETS)
def test_targets_are_those_of_peft(case: str):
    config, count = TARGETS[case]
    assert sum(is_targeted(config, name) for name in NAMES) == count


def test_a_file_that_differs_from_its_configuration_is_read_with_a_notice(tmp_path: Path):
    folder = folder_of(pair(Q), tmp_path, target_modules=["k_proj"], r=4)
    with pytest.warns(Notice) as notices:
        adapter = refiners.load_adapter(folder, model_of())
    assert len(adapter.own_layers) == 1
    (text,) = [str(notice.message) for notice in notices]
    assert "also targets 2 layers for which it has no weights: 'model.layers.0.self_attn.k_" in text
    assert "it changes 1 layers that its configuration does not target" in text
    assert "its configuration has rank 4, its weights 2, which counts" in text


FIELDS: Mapping[str, Any] = {
    "layer_replication": [[0, 2]],
    "alora_invocation_tokens": [5],
    "target_parameters": ["mlp.experts"],
    "use_qalora": True,
    "init_lora_weights": "pissa",
    "monteclora_config": {"n": 1},
    "a_field_of_next_year": 3,
    "peft_type": "XLORA",
    "trainable_token_indices": None,
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_that_is_not_followed_is_refused_by_name(field: str, tmp_path: Path):
    folder = folder_of(pair(Q), tmp_path, **{field: FIELDS[field]})
    if FIELDS[field] is None:
        assert refiners.load_adapter(folder, model_of()).is_worn
        return
    with pytest.raises(WeightsError, match=f"has {field} = .*(not followed|are read)"):
        refiners.load_adapter(folder, model_of())


# --- files for other models ----------------------------------------------------------------------


def test_an_adapter_of_another_width_names_the_model_that_it_is_for(tmp_path: Path):
    folder = folder_of(pair(Q, 32, 32), tmp_path, base_model_name_or_path="org/base-1B")
    with pytest.raises(refiners.IncompatibleError, match=r"width = 32, not 16.* org/base-1B"):
        refiners.load_adapter(folder, model_of())


WRONG: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "other heads": (
        pair("model.layers.0.self_attn.k_proj"),
        r"trained on 'org/base', is a LoRA for a model of other sizes: 1 of 1 layers.* from \[16\] "
        r"to \[16\], the layer from \[16\] to \[8\]; this model is llama. Load org/base",
    ),
    "another vocabulary": (
        {f"{PREFIX}lm_head.weight": torch.ones(260, 16), **pair(Q)},
        "for a vocabulary of 260 tokens, at 'lm_head', not of 258; this model is llama",
    ),
    "a token that is not there": (
        {f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta": torch.ones(1, 16)},
        "a set of trained tokens for a vocabulary of 301 tokens, at 'model.embed_tokens', not of",
    ),
    "no layer of the model": (
        pair("model.layers.7.self_attn.qkv_proj"),
        "holds a LoRA for 1 layers: 'model.layers.7.self_attn.qkv_proj'; none is in the model",
    ),
    "another kind of weights": (
        {f"{PREFIX}model.norm.lora_A.weight": torch.ones(2, 16),
         f"{PREFIX}model.norm.lora_B.weight": torch.ones(16, 2), **pair(Q)},
        "holds a LoRA for 'model.norm', which is a RootMeanSquareNorm",
    ),
    "tokens without ids": (
        {f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta": torch.ones(2, 16)},
        "replaces 2 tokens of 'model.embed_tokens'; its configuration names 1 by trainable",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_file_for_another_model_is_refused(case: str, tmp_path: Path):
    tensors, words = WRONG[case]
    config = {"base_model_name_or_path": "org/base", "trainable_token_indices": [300]}
    model = model_of()
    with pytest.raises(WeightsError, match=words):
        refiners.load_adapter(folder_of(tensors, tmp_path, **config), model)
    assert model.adapters == ()


def test_adapters_of_images_and_of_texts_are_told_apart(tmp_path: Path):
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    image = {
        f"{name}.lora_up.weight": torch.ones(16, 2),
        f"{name}.lora_down.weight": torch.ones(2, 16),
    }
    write(image, tmp_path / "style.safetensors")
    with pytest.raises(WeightsError, match=r"for Stable Diffusion: it names 'lora_unet.*is llama"):
        refiners.load_adapter(tmp_path / "style.safetensors", model_of())
    with pytest.raises(WeightsError, match=r"a LoRA for a language model: it names 'model.layer"):
        refiners.load_adapter(folder_of(pair(Q), tmp_path / "text"), tiny_model())


def test_layers_that_the_model_lacks_are_left_out_with_a_notice(tmp_path: Path):
    tensors = {
        **pair(Q),
        **pair("model.layers.0.mlp.router"),
        f"{PREFIX}score.weight": torch.ones(2, 16),
    }
    with pytest.warns(
        Notice, match=r"2 of 3 layers are not in this llama .* 'model.layers.0.mlp.r"
    ):
        refiners.load_adapter(folder_of(tensors, tmp_path), model_of())


SERIES = {
    "0.17.1": pytest.raises(WeightsError, match=r"series of PEFT 0.17.1, which computed another"),
    None: pytest.warns(Notice, match="states no peft_version"),
}


@pytest.mark.parametrize("version", SERIES)
def test_a_series_of_an_older_version_is_not_taken_for_a_newer_one(
    version: str | None, tmp_path: Path
):
    tensors = {f"{PREFIX}{Q}.oft_R.weight": torch.full((4, 6), 0.1)}
    fields = {"peft_type": "OFT", "oft_block_size": 4, "use_cayley_neumann": True}
    folder = folder_of(tensors, tmp_path, **fields, peft_version=version)
    with SERIES[version]:
        refiners.load_adapter(folder, model_of())


def test_without_its_configuration_a_lora_assumes_its_alpha(tmp_path: Path):
    folder = folder_of(pair(Q), tmp_path)
    (folder / "adapter_config.json").unlink()
    with pytest.warns(Notice, match=r"adapter_config.json, which holds the alphas, is not beside"):
        refiners.load_adapter(folder, model_of())


# --- training and saving -------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, GPT2], ids=["llama", "gpt2"])
def test_a_lora_is_trained_and_saved_as_peft_does(changes: Mapping[str, Any], tmp_path: Path):
    model = model_of(**changes)
    adapter = Lora(rank=2, alpha=3).inject(model)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.normal_(std=0.3)
    expected = logits(model, adapter)
    adapter.save(tmp_path / "adapter_model.safetensors")
    adapter.eject()
    keys = [*read(tmp_path / "adapter_model.safetensors")]
    assert all(key.startswith(f"{PREFIX}{'transformer' if changes else 'model'}.") for key in keys)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "LORA"
    again = refiners.load_adapter(tmp_path, model)
    assert torch.allclose(logits(model, again), expected, atol=1e-4)
    again.save(tmp_path / "alone.safetensors")
    again.eject()
    alone = refiners.load_adapter(tmp_path / "alone.safetensors", model)
    assert torch.equal(
        logits(model, alone), logits(model.eject_all() and model, again.inject(model))
    )


def test_names_without_a_prefix_have_the_configuration_as_well(tmp_path: Path):
    tensors = {key.removeprefix(PREFIX): tensor for key, tensor in pair(Q).items()}
    adapter = refiners.load_adapter(folder_of(tensors, tmp_path), model_of())
    assert [layer.alpha for layer in adapter.own_layers.values()] == [5]


def test_a_lora_of_a_language_model_is_not_reworked(tmp_path: Path):
    folder = folder_of(pair(Q), tmp_path)
    with pytest.raises(
        AdapterError, match=r"this model is llama, a language model. Wear the adapt"
    ):
        resize(folder, model_of(), rank=1)


def test_other_methods_are_not_saved():
    adapter = make().inject(model_of())
    with pytest.raises(
        AdapterError, match="of a language model is not saved, only a plain LoRA is"
    ):
        adapter.published()
