"""The folders of the writer and of its adapters are those that transformers and PEFT read."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import refiners
import torch
from refiners_playground.writer import FOLDER

TRAINING = Path(__file__).parents[2] / "plugins/playground/training"
MESSAGES = [
    {"role": "system", "content": "Answer in one sentence."},
    {"role": "user", "content": "Describe a red circle on a blue ground."},
    {"role": "assistant", "content": "Picture a red circle on a blue background."},
    {"role": "user", "content": " Make it green. "},
]


@pytest.fixture(scope="module")
def peer():
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(TRAINING)
    yield
    for name in set(sys.modules) - before:
        if TRAINING in Path(str(getattr(sys.modules[name], "__file__", ""))).parents:
            del sys.modules[name]


def test_transformers_reads_the_same_model(peer):
    from transformers import AutoTokenizer

    writer = refiners.load_model("playground-writer")
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    ids = tokenizer.apply_chat_template(
        MESSAGES, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )["input_ids"]
    assert ids[0].tolist() == writer.tokenizer.chat_tokens(MESSAGES)
    theirs = peer.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :]
    assert tokenizer.decode(theirs, skip_special_tokens=True) == writer.generate(MESSAGES)
    assert tokenizer("Once upon")["input_ids"] == writer.tokenizer.tokens("Once upon")


@pytest.mark.parametrize("name", ["writer-archaic", "writer-green"])
def test_peft_reads_the_same_adapter(scripts, name):
    from peft import PeftModel
    from train_writer_adapters import COURSES
    from transformers import AutoModelForCausalLM

    writer = refiners.load_model("playground-writer")
    folder = FOLDER.with_name(name.replace("-", "_"))
    base = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    tuned = PeftModel.from_pretrained(base, folder, autocast_adapter_dtype=True).eval()
    ids = torch.tensor([writer.tokenizer.tokens("a red circle on a blue ground")])
    adapter = COURSES[name].adapter(name=name).inject(writer)
    with torch.no_grad():
        adapter.restore(writer, folder)
        ours, theirs = writer.decoder(ids), tuned(ids).logits
        adapter.eject()
        plain = writer.decoder(ids)
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
    assert (plain - theirs).norm() > 0.01 * theirs.norm()
