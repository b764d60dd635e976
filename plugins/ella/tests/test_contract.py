"""ELLA keeps the contract of adapters, reads every prompt, and refuses other files and scales."""

import json
import tomllib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from refiners_ella.adapter import Ella
from refiners_ella.connector import ConnectorConfig
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Condition, Source, UseContext, select
from refiners_core.errors import AdapterError, ConditionError, WeightsError
from refiners_core.models.decoder import Decoder, DecoderConfig, decoder_keys
from refiners_core.models.t5 import T5Config
from refiners_core.testing import LAWS, AdapterCase, tiny_model, tiny_t5_tokenizer
from refiners_core.weights import load, published, read, write

T5 = T5Config(vocabulary=110, width=12, inner_width=16, layers=2, heads=2, head_width=4)
SIZES = ConnectorConfig(features=12, width=8, tokens=4, layers=2, heads=2, waves=6)


def untrained(**options: Any) -> Ella:
    torch.manual_seed(3)  # the same weights each time
    return Ella(encoder=T5, connector=SIZES, tokenizer=tiny_t5_tokenizer(), key="ella", **options)


def bits(latents: Tensor) -> bytes:
    return latents.numpy().tobytes()


def targets() -> list[tuple[str, str]]:
    manifest = tomllib.loads((files("refiners_ella") / "adapter.toml").read_text())
    variant, *_ = manifest["adapter"]["ella"]["variant"]
    return [(target["slot"], target["stage"]) for target in variant["targets"]]


@pytest.mark.parametrize("law", LAWS)
def test_it_keeps_the_contract(law: Callable[[AdapterCase], None]):
    law(AdapterCase(untrained, targets=targets()))


def generate(model: Any, prompt: Any, conditions: Any = None, **options: Any) -> Tensor:
    fixed: dict[str, Any] = {"steps": 2, "seed": 7, "output": "latents", "progress": False}
    return model.generate(prompt, conditions=conditions, guidance=3.0, **fixed | options)


def test_prompts_and_negative_prompts_pass_through_t5():
    model = tiny_model()
    untrained().inject(model)
    made = [
        bits(generate(model, prompt, negative_prompt=negative))
        for prompt, negative in (("a cat", ""), ("a dog", ""), ("a cat", "dull"), ("a cat", ""))
    ]
    assert made[0] == made[3]
    assert len({*made}) == 3


def test_each_picture_has_its_prompt_whatever_the_lengths():
    model = tiny_model()
    untrained().inject(model)
    prompts = ["a cat", "a long and dense description of a cat"]
    both = generate(model, prompts)
    alone = [generate(model, prompt, seed=7 + i) for i, prompt in enumerate(prompts)]
    torch.testing.assert_close(both, torch.cat(alone), rtol=1e-4, atol=1e-4)


def test_a_fixed_number_of_tokens_reads_padding_as_in_the_training():
    outputs: list[Any] = []
    for tokens in (None, 16, 32):
        model = tiny_model()
        untrained(tokens=tokens).inject(model)
        outputs.append(bits(generate(model, "a cat")))
    assert len({*outputs}) == 3


class Reader(Adapter):
    """Adds what the side network of another adapter reads as the text."""

    def edits(self, model: Any) -> Any:
        text = UseContext("text")

        def beside(inner: nn.Module, seat: Any) -> Chain:
            return Chain(Recorder(self, text), inner)

        return model.slot("unet.mid.output").wrap(beside) + model.slot(
            "unet.cross_attention"
        ).first().wrap(beside, stage="branch")


class Recorder(Chain):
    def __init__(self, adapter: Any, text: nn.Module) -> None:
        super().__init__(text=text)
        self.texts = adapter.__dict__.setdefault("texts", [])

    def run(self, context: Any, *inputs: Any) -> Any:
        self.texts.append(context["text"].shape[1])
        return inputs[0]


def test_only_the_cross_attentions_read_its_tokens():
    model = tiny_model()
    untrained().inject(model)
    reader = Reader(key="reader").inject(model)
    generate(model, "a cat", steps=1)
    assert {*reader.__dict__["texts"]} == {16}  # outside the attentions it is CLIP's
    attention = select(model.unet).of(UseContext).where(lambda seat: seat.name == "k").first()[0]
    lengths: list[int] = []
    attention.layer.register_forward_hook(lambda _, __, text: lengths.append(text.shape[1]))
    generate(model, "a cat", steps=1)
    assert lengths == [SIZES.tokens]


@torch.no_grad()
def test_its_tokens_depend_on_the_timestep():
    model = tiny_model()
    adapter = untrained().inject(model)
    tokens = [
        adapter.connector(None, context={
            adapter.features_key: torch.ones(1, 5, 12), "timestep": torch.tensor(timestep),
        })
        for timestep in (900, 100)
    ]  # fmt: skip
    assert not torch.allclose(*tokens)


def test_it_acts_in_a_span_of_steps():
    model = tiny_model()
    bare = generate(model, "a cat")
    adapter = untrained().inject(model)
    half = generate(model, "a cat", {adapter: Condition(end=0.5)})
    assert bits(half) not in (bits(bare), bits(generate(model, "a cat")))
    schedule = generate(model, "a cat", {adapter: Condition(scale=[(0.0, 1.0), (0.4, 0.0)])})
    assert bits(schedule) != bits(bare)
    scales: list[Any] = [0.5, [1.0, 0.0], [(0.0, 1.0), (0.5, 0.2)], {"unet.mid": 1.0}]
    for scale in scales:
        with pytest.raises(ConditionError, match=r"its scale is 1 or 0|none of its layers reads"):
            generate(model, ["a cat", "a dog"], {adapter: Condition(scale=scale)})


def test_without_a_tokenizer_it_says_so():
    model = tiny_model()
    Ella(encoder=T5, connector=SIZES, key="ella").inject(model)
    with pytest.raises(ConditionError, match="without a tokenizer"):
        generate(model, "a cat")


@pytest.mark.parametrize("tokens", [0, 1])
def test_fewer_tokens_than_a_prompt_needs_are_refused(tokens: int):
    with pytest.raises(AdapterError, match="at least 2 tokens"):
        Ella(tokens=tokens)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ella") / "ella.safetensors"
    untrained().inject(tiny_model()).save(path)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {"a": torch.ones(1)}, "these are not the weights of ELLA"),
        (lambda t: t | {"connector.latents": torch.ones(4, 9)}, "makes tokens of 9 features"),
    ],
)
def test_other_files_are_refused(change: Any, message: str, file: Path, tmp_path: Path):
    write(change(read(file)), tmp_path / "other.safetensors")
    model = tiny_model()
    adapter = Ella(weights=lambda _: Source({"weights": tmp_path / "other.safetensors"}))
    with pytest.raises(WeightsError, match=message):
        adapter.inject(model)
    assert model.adapters == ()


LLAMA = {
    **{"model_type": "llama", "vocab_size": 40, "hidden_size": 12, "intermediate_size": 16},
    **{"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1},
    **{"max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 1e4},
    **{"hidden_act": "silu", "tie_word_embeddings": True},
}


def decoder_files(folder: Path) -> dict[str, Path]:
    """Writes an ELLA that reads a small Llama."""
    torch.manual_seed(4)
    config = DecoderConfig.from_json(LLAMA)
    decoder = Decoder(config)
    write(published(decoder, decoder_keys(config)), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(LLAMA))
    words = {"[UNK]": 0, "a": 1, "red": 2, "cat": 3, "dog": 4, "on": 5, "mat": 6}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    adapter = Ella(encoder=config, connector=SIZES, key="ella")
    with adapter.on(tiny_model()):
        adapter.save(folder / "ella.safetensors")
    names = {"weights": "ella.safetensors", "encoder": "model.safetensors"}
    names |= {"config": "config.json", "tokenizer": "tokenizer.json"}
    return {role: folder / name for role, name in names.items()}


def test_a_decoder_reads_prompts_as_well(tmp_path: Path):
    files = decoder_files(tmp_path)
    model = tiny_model()
    adapter = Ella(weights=lambda _: Source(files, settings={"heads": 2}), key="ella").inject(model)
    decoder = Decoder(DecoderConfig.from_json(LLAMA))
    load(decoder, files["encoder"], decoder_keys(decoder.config))
    ids = torch.tensor([[1, 2, 3]])
    features = adapter.language.read(ids, torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(features @ decoder.embed.weight.T, decoder(ids))
    assert adapter.tokenizer is not None
    rows, mask = adapter.tokenizer.rows(["a red cat", "a dog", ""])
    assert rows.tolist() == [[1, 2, 3], [1, 4, 0], [0, 0, 0]]
    assert mask.tolist() == [[True] * 3, [True, True, False], [True, False, False]]
    short = adapter.language.read(rows[1:2, :2], mask[1:2, :2])
    torch.testing.assert_close(adapter.language.read(rows, mask)[1:2, :2], short)
    both = generate(model, ["a red cat", "a dog"])
    alone = [generate(model, prompt, seed=7 + i) for i, prompt in enumerate(["a red cat", "a dog"])]
    torch.testing.assert_close(both, torch.cat(alone), rtol=1e-4, atol=1e-4)
    assert adapter.published().keys() == read(files["weights"]).keys()
