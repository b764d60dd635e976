"""Files of tensors have the same bytes whenever they have the same contents."""

import torch

from refiners_core.weights import TensorFile, write


def test_equal_contents_give_equal_bytes(tmp_path):
    tensors = {"b": torch.ones(2), "a": torch.zeros(3, 1)}
    metadata = {f"key {i}": f'é\n"\x7f\x01 {i}' for i in range(8)}
    files = [tmp_path / f"{i}.safetensors" for i in range(4)]
    for i, path in enumerate(files):
        write(tensors, path, dict(sorted(metadata.items(), reverse=i % 2 == 0)))
    assert len({path.read_bytes() for path in files}) == 1
    with TensorFile(files[0]) as file:
        assert file.metadata() == {"format": "pt", **metadata}
        assert file.tensor("b").equal(tensors["b"])
