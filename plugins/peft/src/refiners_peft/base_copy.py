"""Copies of weights of the base model, which PEFT saves beside an adapter of a head."""

from dataclasses import replace

import torch
from torch import Tensor

from refiners_core.errors import WeightsError
from refiners_core.models.decoder import LanguageModel
from refiners_core.weights import published
from refiners_peft.peft_file import PeftFile

_HEAD = "lm_head.weight"


def without_copies(file: PeftFile, model: LanguageModel) -> PeftFile:
    """Returns a file without the tensors that are weights of the model.

    Raises:
        WeightsError: Such a tensor differs from that of the model.
    """
    keys = [key for key in file.tensors if key.endswith((".weight", ".bias"))]
    keys = [key for key in keys if "ln_tuning_layers" not in key]
    if not keys:
        return file
    layout = model.layouts["decoder"]
    weights = published(model.decoder, layout)
    weights.setdefault(_HEAD, model.decoder.head.weight.detach())  # one tensor, if it is tied
    copies: set[str] = set()
    for key in keys:
        name = layout.current(key.replace(".base_layer.", "."))
        if (weight := weights.get(name)) is None:
            raise file.odd(key)
        if not _is_equal(file.tensors[key], weight):
            raise WeightsError(
                f"{file.name} has another {name} than this model, {list(file.tensors[key].shape)} "
                f"for {list(weight.shape)}, and only changes of layers are read.{file.origin}",
                hint="Load the model that it was trained on; or, if it trains this layer as well, "
                "save the adapter without modules_to_save.",
            )
        copies.add(key)
    rest = {key: tensor for key, tensor in file.tensors.items() if key not in copies}
    return replace(file, tensors=rest)


def _is_equal(tensor: Tensor, weight: Tensor) -> bool:
    if tensor.shape != weight.shape or weight.device.type == "meta":
        return tensor.shape == weight.shape
    return torch.equal(tensor.to(weight.device, weight.dtype), weight)
