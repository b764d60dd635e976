"""Conversion of published pickles to safetensors."""

import hashlib
import os
import pickle
import sys
from types import ModuleType
from unittest.mock import patch

import pytest
import torch
from torch import nn

from refiners_core.weights import PickleError, TensorFile, read, rewrite_pickle


class Evil:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def rewrite(path):
    """Converts a pickle with its right hash."""
    target = path.with_suffix(".safetensors")
    rewrite_pickle(path, target, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    return target


def test_nested_tensors_get_dotted_names(tmp_path):
    shared = torch.arange(4.0)
    content = {"image_proj": {"w": shared}, "ip": {"1.k": shared[1:]}, "rank": 4}
    torch.save(content, tmp_path / "a.bin")
    tensors = read(rewrite(tmp_path / "a.bin"))
    assert sorted(tensors) == ["image_proj.w", "ip.1.k"]
    assert tensors["ip.1.k"].equal(shared[1:])
    with TensorFile(tmp_path / "a.safetensors") as file:
        assert file.metadata()["rank"] == "4"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("make", ["evil", "junk", "empty", "plain"])
def test_a_pickle_with_anything_but_tensors_is_not_opened(tmp_path, make):
    path = tmp_path / "a.bin"
    if make == "evil":
        path.write_bytes(pickle.dumps({"a": Evil(tmp_path / "was-run")}))
    elif make == "plain":
        torch.save({"a": 1}, path)
    else:
        path.write_bytes(b"junk" if make == "junk" else b"")
    with pytest.raises(PickleError) as caught:
        rewrite(path)
    assert caught.value.exit_code == 4
    assert not (tmp_path / "was-run").exists()
    assert not (tmp_path / "a.safetensors").exists()


def test_an_old_torch_opens_no_pickle(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(PickleError, match=r"torch 2\.9\.1\+cpu does not open"):
        rewrite_pickle(tmp_path / "a.bin", tmp_path / "a.safetensors", sha256="0" * 64)


def test_a_pickle_with_another_hash_is_not_opened(tmp_path, monkeypatch):
    torch.save({"a": torch.ones(1)}, tmp_path / "a.bin")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("was opened"))
    with pytest.raises(PickleError, match=r"has the sha256 [0-9a-f]{64}, not 0000"):
        rewrite_pickle(tmp_path / "a.bin", tmp_path / "a.safetensors", sha256="0" * 64)
    with pytest.raises(PickleError, match="cannot be read: No such file"):
        rewrite_pickle(tmp_path / "b.bin", tmp_path / "a.safetensors", sha256="0" * 64)
    assert not (tmp_path / "a.safetensors").exists()


def test_a_training_checkpoint_keeps_its_weights_without_importing_the_trainer(tmp_path):
    name = "pytorch_lightning.callbacks.model_checkpoint"
    kind = type("ModelCheckpoint", (), {"__module__": name})
    modules = {part: ModuleType(part) for part in (name.partition(".")[0], name)}
    modules[name].ModelCheckpoint = kind
    state = {"model.diffusion_model.w": torch.arange(3.0)}
    content = {"epoch": 1, "callbacks": {kind: {"best": kind()}}, "state_dict": state}
    with patch.dict(sys.modules, modules):
        torch.save(content, tmp_path / "a.ckpt")
    tensors = read(rewrite(tmp_path / "a.ckpt"))
    assert list(tensors) == ["model.diffusion_model.w"]
    assert tensors["model.diffusion_model.w"].equal(torch.arange(3.0))
    assert not any(name.startswith("pytorch_lightning") for name in sys.modules)


def test_the_dictionary_of_a_textual_inversion_is_read(tmp_path):
    vectors = torch.arange(6.0).view(2, 3)
    content = {
        "string_to_token": {"*": torch.tensor(265)},
        "string_to_param": nn.ParameterDict({"*": nn.Parameter(vectors)}),
        "name": "cat",
    }
    torch.save(content, tmp_path / "a.pt")
    written = rewrite(tmp_path / "a.pt")
    assert read(written)["string_to_param.*"].equal(vectors)
    with TensorFile(written) as file:
        assert file.metadata()["name"] == '"cat"'
