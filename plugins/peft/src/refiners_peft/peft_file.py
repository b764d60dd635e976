"""The files of PEFT: tensors under the names of layers, and a configuration."""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor

from refiners_core import Source
from refiners_core.errors import WeightsError
from refiners_core.weights import TensorFile
from refiners_peft.field import check_fields

CONFIG: Final = "adapter_config.json"
"""The file in which PEFT stores its configuration, beside the weights."""
PREFIX: Final = "base_model.model."
"""The words that PEFT writes before the names of layers."""
PROMPT: Final = "prompt_embeddings"
"""The tensor of learned tokens."""
_WRAPPERS: Final = frozenset(
    ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
)
"""The names that torch.compile, DDP, FSDP and checkpointing put into the paths of layers."""


@dataclass(frozen=True)
class PeftFile:
    """An adapter of PEFT, as a file and its configuration hold it."""

    name: str
    """The name of the file, for messages."""
    method: str
    """The method, as PEFT names it."""
    tensors: Mapping[str, Tensor]
    """The tensors by name, without the words of wrappers and PEFT's prefix."""
    config: Mapping[str, Any]

    def prompt(self) -> Tensor:
        """Returns the learned tokens, (tokens, features).

        Raises:
            WeightsError: The file has other tensors, or the learned tokens have another shape or
                number.
        """
        if odd := [key for key in self.tensors if key != PROMPT]:
            raise self.odd(odd[0])
        prompt = self.tensors[PROMPT]
        count = self.config.get("num_virtual_tokens")
        if prompt.ndim != 2 or not prompt.numel() or count not in (None, len(prompt)):
            stated = "" if count is None else f", and {count} tokens in its configuration"
            raise WeightsError(
                f"{self.name} has learned tokens of the shape {list(prompt.shape)}{stated}.",
                hint="Fetch both files again: learned tokens are (tokens, features).",
            )
        return prompt

    def by_layer(
        self, pattern: re.Pattern[str], apart: Collection[str] = ()
    ) -> dict[str, dict[str, Tensor]]:
        """Returns the tensors of each layer by role.

        Args:
            pattern: Matches a name, with the groups `layer` and `role`.
            apart: The names of tensors that belong to no layer.

        Raises:
            WeightsError: A tensor has another name, or two tensors have one role in a layer.
        """
        layers: dict[str, dict[str, Tensor]] = {}
        for key, tensor in self.tensors.items():
            if key in apart:
                continue
            if (match := pattern.fullmatch(key)) is None:
                raise self.odd(key)
            roles = layers.setdefault(match["layer"], {})
            if match["role"] in roles:
                raise WeightsError(
                    f"{self.name} has two tensors {match['role']} for {match['layer']!r}.",
                    hint="Give a file of one adapter: PEFT keeps each in a folder.",
                )
            roles[match["role"]] = tensor
        return layers

    def odd(self, key: str) -> WeightsError:
        """Returns the error for a tensor that the method does not have."""
        return WeightsError(
            f"{self.name} has a tensor {key!r}, which {self.method} does not have: it would be "
            "left out.",
            hint="Save the adapter without modules_to_save and without trained biases.",
        )

    @property
    def origin(self) -> str:
        """The model that it was trained on, as a clause; empty if that is not known."""
        base = self.config.get("base_model_name_or_path")
        return f" It was trained on {base}." if base else ""


def read_peft(source: Source, *methods: str) -> PeftFile:
    """Reads an adapter of PEFT and checks what does not depend on a model.

    Args:
        source: The file, with the role `weights`; `config` is its configuration, by default
            `adapter_config.json` beside it.
        methods: The methods that are read, as PEFT names them; the first one if there is no
            configuration.

    Raises:
        WeightsError: The file is unreadable or damaged, is of another method, or its configuration
            has a field that is not followed.
    """
    path = source.files["weights"]
    config = _config(source.files.get("config") or path.with_name(CONFIG))
    method = str(config.get("peft_type") or methods[0])
    if method not in methods:
        raise WeightsError(
            f"{path.name} is a {method} in its configuration, not {' or '.join(methods)}.",
            hint=f'Try load_adapter("{path}", model), which finds the adapter that reads it.',
        )
    name = f"{path.parent.name}/{path.name}"  # PEFT gives all files one name
    check_fields(name, method, config)
    tensors: dict[str, Tensor] = {}
    with TensorFile(path) as file:
        for key in file.names():
            place = _cleaned(key)
            if place in tensors:
                raise WeightsError(
                    f"{name} has two tensors for {place!r}.",
                    hint="Save the adapter again, without torch.compile and DDP around the model.",
                )
            tensors[place] = _checked(name, key, file.tensor(key))
    if not tensors:
        raise WeightsError(f"{name} has no tensors.", hint="Fetch it again.")
    return PeftFile(name, method, tensors, config)


def _cleaned(key: str) -> str:
    words = [word for word in key.split(".") if word not in _WRAPPERS]
    return ".".join(words).removeprefix(PREFIX)


def _checked(file: str, key: str, tensor: Tensor) -> Tensor:
    if tensor.is_floating_point() and torch.isfinite(tensor.float()).all():
        return tensor
    raise WeightsError(
        f"{file} is damaged: {key!r} does not have finite numbers alone.",
        hint="Fetch it again, or ask its author: training diverged.",
    )


def _config(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        config = json.loads(text := path.read_text("utf-8"))
        if not isinstance(config, dict):
            raise TypeError(f"it is {text[:20]!r}")
    except (ValueError, TypeError) as error:
        raise WeightsError(
            f"{path} is not a JSON object: {error}.", hint="Fetch the file again."
        ) from error
    return cast("Mapping[str, Any]", config)
