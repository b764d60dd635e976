"""Makes a Control-LoRA of a ControlNet, as Stability AI made the released ones."""

from pathlib import Path

import torch
from torch import Tensor

from refiners_controllora.checkpoint import MARKER
from refiners_core.errors import WeightsError
from refiners_core.models.control import (
    Control,
    ControlFile,
    ldm_control_keys,
    network_path,
    shape_of_change,
    shared_layers,
)
from refiners_core.models.device import built_on
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.weights import load, published, write


def extract(control: str | Path, model: LatentDiffusion, rank: int, path: str | Path) -> None:
    """Writes a Control-LoRA: the low-rank part of a ControlNet's difference from the base.

    Each weight's difference from the base's is approximated by its largest singular values (the
    best approximation of that rank); biases, norms and the ControlNet's other layers are stored
    whole.

    Args:
        control: The file of a ControlNet, in the layout of diffusers or of the original code.
        model: The model that the ControlNet was trained on.
        rank: The rank of the changes, less where a layer is smaller.
        path: The safetensors file to write.

    Raises:
        WeightsError: The file is not a ControlNet with all the layers of this model's way down, or
            `path` cannot be written.
    """
    unet = model.unet
    file = ControlFile.read(Path(control), unet.config)
    if file.is_difference or file.is_cut or file.config != unet.config:
        raise WeightsError(
            "this ControlNet is a difference, or lacks layers of the base.",
            hint="Give a whole ControlNet of the same structure as the base.",
        )
    with built_on("meta"):
        whole = Control(file.config, file.channels, "features")
    load(whole, file.tensors, file.keys, dtype=torch.float32)
    keys = ldm_control_keys(unet.config, len(file.channels))
    tensors = published(whole, keys)
    for place, layer in shared_layers(unet):
        name = keys.published(network_path(place))
        for kind, base in layer.named_parameters(recurse=False):
            shape = shape_of_change(base, place, unet)
            if len(shape) > 1:
                difference = tensors.pop(f"{name}.{kind}").cpu() - _first(base, shape)
                up, down = factors(difference.flatten(1), rank)
                ones = (1,) * (len(shape) - 2)
                tensors[f"{name}.up"] = up.reshape(*up.shape, *ones)
                tensors[f"{name}.down"] = down.reshape(len(down), *shape[1:])
    write({**tensors, MARKER: torch.zeros(0)}, path)


def factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Returns the two factors of the best approximation of a matrix with a rank.

    Args:
        matrix: The matrix, (rows, columns).
        rank: The rank, less where the matrix is smaller.
    """
    u, s, v = torch.linalg.svd(matrix.float(), full_matrices=False)
    size = min(rank, len(s))
    return u[:, :size] * s[:size], v[:size]


def _first(base: Tensor, shape: tuple[int, ...]) -> Tensor:
    return base.detach().float().cpu()[:, : shape[1]]
