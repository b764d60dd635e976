"""Language models: the loss of learnt tokens, and adapters that PEFT reads."""

import json
import os
import subprocess
import sys
from typing import Any

import peft
import pytest
import tomlkit
import torch
import transformers
from refiners_lora.adapter import Lora
from refiners_train import train
from refiners_train.data.text_source import Texts
from refiners_train.data.token_rows import TokenRows
from refiners_train.engine.causal import Causal
from refiners_train.engine.device import build_accelerator
from refiners_train.engine.learner import Learners, base_weights
from refiners_train.engine.loop import Loop
from torch.nn.functional import cross_entropy

from refiners_core import Source
from refiners_core.models.decoder import load_decoder
from refiners_core.testing import tiny_language_model
from refiners_core.weights import read

from .tiny import config, run, weights_of

TEXTS = [
    {"prompt": "a", "completion": "bcdefgh"},
    {"prompt": "ijklm", "completion": "n"},
    {"prompt": "op", "completion": "qrst"},
    {"prompt": "uvw", "completion": "xyz!"},
]
SIZES: dict[str, Any] = {
    "vocab_size": 258, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "bos_token_id": 256, "eos_token_id": 257, "pad_token_id": None,
}  # fmt: skip
GPT2: dict[str, Any] = {
    "vocab_size": 258, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64,
    "bos_token_id": 256, "eos_token_id": 257,
}  # fmt: skip


def loop_of(**settings: Any) -> tuple[Loop, TokenRows]:
    torch.manual_seed(0)
    model = tiny_language_model()
    base = base_weights(model)
    adapter = Lora(rank=2).inject(model)
    learners = Learners(base, adapter)
    made = config(objective="causal", **settings)
    source = TokenRows(Texts(TEXTS, "x", "rows"), model, completions_only=True)
    objective = Causal(model, adapter, made)
    return Loop(build_accelerator("cpu", "float32"), learners, objective, made.train), source


def test_the_loss_is_the_mean_over_all_learnt_tokens_of_the_step():
    loop, source = loop_of(steps=1)
    with torch.no_grad():
        model: Any = loop.objective.model
        sums, count = 0.0, 0
        for index in range(4):  # each alone, without padding
            ids, are_learnt = source.tokens(source.example(index, 0))
            logits = model.decoder(torch.tensor([ids[:-1]]))[0]
            errors = cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
            sums += errors[torch.tensor(are_learnt[1:])].sum().item()
            count += sum(are_learnt[1:])
    assert count == 7 + 1 + 4 + 4 + 4
    assert run(loop, source) == [pytest.approx(sums / count, rel=1e-5)]


@pytest.mark.parametrize("accumulation", [2, 3, 4])
def test_parts_of_a_batch_add_up_to_the_whole(accumulation):
    whole, source = loop_of(steps=3)
    parts, _ = loop_of(steps=3, accumulation=accumulation)
    assert run(whole, source) == pytest.approx(run(parts, source), rel=1e-5)
    for one, other in zip(weights_of(whole), weights_of(parts), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_training_writes_what_the_texts_say():
    loop, source = loop_of(steps=60, **{"learning-rate": 0.05})
    losses = run(loop, source)
    assert losses[-1] < 0.85 * losses[0]


def differ(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


# --- PEFT ----------------------------------------------------------------------------------------


def published(folder, kind: str):
    """Saves a random model of transformers with the tokenizer of bytes, and returns it."""
    torch.manual_seed(0)
    name, sizes = {
        "llama": ("Llama", SIZES),
        "qwen2": ("Qwen2", SIZES | {"tie_word_embeddings": True}),
        "mistral": ("Mistral", SIZES),
        "gpt2": ("GPT2", GPT2),
    }[kind]
    made = getattr(transformers, f"{name}Config")(**sizes)
    head = "LMHeadModel" if kind == "gpt2" else "ForCausalLM"
    peer = getattr(transformers, f"{name}{head}")(made).eval()
    for weight in peer.parameters():
        weight.data += torch.randn(weight.shape) * 0.1
    peer.save_pretrained(folder)
    tokenizer = tiny_language_model().tokenizer
    tokenizer.model.save(str(folder / "tokenizer.json"))
    return peer


def project(folder, base, **settings: Any):
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, TEXTS)))
    table = {
        "output": str(folder / "run"),
        "base": {"model": str(base)},
        "adapter": {"name": "lora", "options": {"rank": 4, "alpha": 10.0}},
        "data": {
            "source": f"jsonl:{folder / 'texts.jsonl'}",
            "options": {"completions_only": True},
        },
        "train": {
            "objective": "causal", "steps": 3, "batch": 3, "learning-rate": 0.05,
            "checkpoint-every": 1, **settings,
        },
        "log": {"every": 1},
        "result": {"dtype": "float32"},
    }  # fmt: skip
    path = folder / "train.toml"
    path.write_text(tomlkit.dumps(table))
    return path


@pytest.mark.parametrize(
    "kind",
    ["llama", "gpt2", "qwen2", "mistral"],
)
def test_peft_reads_the_trained_lora(kind, tmp_path):
    peer = published(tmp_path / "base", kind)
    run = train(
        project(tmp_path, tmp_path / "base", **{"gradient-checkpointing": True}),
        device="cpu",
        progress=False,
    )
    [weights] = run.rglob("adapter_model.safetensors")
    assert all(weight.any() for weight in read(weights).values())
    ids = torch.randint(0, 256, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        bare = peer(ids).logits
        theirs = peft.PeftModel.from_pretrained(peer, weights.parent).eval()(ids).logits
        model = load_decoder(tmp_path / "base")
        assert differ(model.decoder(ids), bare) < 1e-5
        adapter = Lora(weights=source_of(weights)).inject(model)
        ours = model.decoder(ids, context={adapter.scale_key: torch.tensor(1.0)})
    assert differ(theirs, bare) > 1e-2
    assert differ(ours, theirs) <= 1e-4


def source_of(weights):
    files = {"weights": weights, "config": weights.with_name("adapter_config.json")}
    return lambda model: Source(variant="x", files=files)


@pytest.mark.slow
def test_two_processes_train_a_language_model_as_one_does(tmp_path):
    folders = [tmp_path / "alone", tmp_path / "both"]
    for folder in folders:
        folder.mkdir()
        published(folder / "base", "llama")
        project(folder, folder / "base")
    train(folders[0] / "train.toml", device="cpu", progress=False)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; from refiners_train import train; train(sys.argv[1], device='cpu')"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*launch, str(script), str(folders[1] / "train.toml")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=120,
    )
    losses = [
        [json.loads(line)["loss"] for line in (folder / "run/log.jsonl").read_text().splitlines()]
        for folder in folders
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    left, right = (read(next(folder.rglob("adapter_model.safetensors"))) for folder in folders)
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-2, atol=1e-4)
