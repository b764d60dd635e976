"""Adapters of the writer for training, and the folders in which their kinds are published."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context, Edit, Layer, Model, Residual, Seat, Sum
from refiners_core.models.decoder import LanguageModel
from refiners_core.weights import write

RANK, PREFIX, REDUCTION = 8, 8, 4
BASE = "playground-writer"


class Published(Adapter):
    """An adapter that is always on, and is written as others publish its kind."""

    file: ClassVar[str]

    def begin(self, model: LanguageModel, tokens: Sequence[int]) -> None:
        """Puts the untrained adapter on a model.

        Args:
            model: The model.
            tokens: The tokens of words that it is to write.
        """
        self.inject(model)

    def tensors(self, model: LanguageModel) -> Mapping[str, Tensor]:
        """Returns its weights under published keys."""
        raise NotImplementedError

    def config(self, model: LanguageModel) -> Mapping[str, Any]:
        """Returns its `adapter_config.json`."""
        raise NotImplementedError

    def write(self, model: LanguageModel, folder: Path) -> None:
        """Writes the folder, with weights in fp16."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.detach().half() for name, value in self.tensors(model).items()}
        write(tensors, folder / self.file)
        config = json.dumps(self.config(model), indent=2, sort_keys=True)
        (folder / "adapter_config.json").write_text(config + "\n", "utf-8")

    @torch.no_grad()
    def restore(self, model: LanguageModel, folder: Path) -> None:
        """Reads the weights that `write` wrote; the adapter is on the model."""
        published = load_file(folder / self.file)
        for name, weight in self.tensors(model).items():
            weight.copy_(published[name])


def peft_config(kind: str, **fields: Any) -> dict[str, Any]:
    """Returns a configuration of PEFT."""
    return {
        "peft_type": kind,
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": BASE,
        "inference_mode": True,
        "revision": None,
        "auto_mapping": None,
        **fields,
    }


class Lora(Published):
    """Puts a low-rank change beside every linear layer (arXiv:2106.09685, section 4.1)."""

    file = "adapter_model.safetensors"

    def edits(self, model: Model) -> Iterable[Edit]:
        def beside(inner: nn.Module, seat: Seat) -> nn.Module:
            return Sum(inner, self.layer(seat, lambda: _low_rank(seat)))

        return model.slot("decoder.linear").wrap(beside, name="lora")

    def tensors(self, model: LanguageModel) -> Mapping[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for name, places in model.published_places("decoder.linear")["decoder"].items():
            [(seat, _)] = places
            down, up = self.layer(seat, _missing)
            tensors[f"base_model.model.{name}.lora_A.weight"] = down.weight
            tensors[f"base_model.model.{name}.lora_B.weight"] = up.weight
        return tensors

    def config(self, model: LanguageModel) -> Mapping[str, Any]:
        names = model.published_places("decoder.linear")["decoder"]
        return peft_config(
            "LORA",
            r=RANK,
            lora_alpha=RANK,
            lora_dropout=0.0,
            bias="none",
            use_rslora=False,
            use_dora=False,
            fan_in_fan_out=False,
            modules_to_save=None,
            target_modules=sorted({name.rpartition(".")[2] for name in names}),
        )


class Prefix(Published):
    """Lets every token attend to learnt keys and values (arXiv:2101.00190, section 4.2)."""

    file = "adapter_model.safetensors"

    def edits(self, model: Model) -> Iterable[Edit]:
        width = model.facts["key_width"]

        def longer(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(self.layer(seat, lambda: MoreKeys(width)), inner)

        def later(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(inner, Later())

        return (
            *model.slot("decoder.attend").wrap(longer, stage="inputs", name="prefix"),
            *model.slot("decoder.places").wrap(later, stage="output", name="later"),
        )

    def tensors(self, model: LanguageModel) -> Mapping[str, Tensor]:
        layers = [self.layer(seat, _missing) for seat in model.slot("decoder.attend")]
        return {
            "prompt_embeddings": torch.cat([part for layer in layers for part in layer.keys], 1)
        }

    def config(self, model: LanguageModel) -> Mapping[str, Any]:
        return peft_config(
            "PREFIX_TUNING",
            num_virtual_tokens=PREFIX,
            num_layers=model.config.layers,
            token_dim=model.facts["key_width"],
            num_attention_heads=model.config.kv_heads,
            num_transformer_submodules=1,
            encoder_hidden_size=model.config.width,
            prefix_projection=False,
        )

    @torch.no_grad()
    def begin(self, model: LanguageModel, tokens: Sequence[int]) -> None:
        """Puts it on a model with the keys and values of words, as section 7.4 of the paper
        recommends."""
        records: list[Record] = []

        class Listen(Adapter):
            def edits(self, model: Model) -> Iterable[Edit]:
                def heard(inner: nn.Module, seat: Seat) -> nn.Module:
                    records.append(Record())
                    return Chain(records[-1], inner)

                return model.slot("decoder.attend").wrap(heard, stage="inputs", name="listen")

        with Listen(name="listen").on(model):
            model.decoder(torch.tensor([[*tokens]]))
        self.inject(model)
        for seat, record in zip(model.slot("decoder.attend"), records, strict=True):
            self.layer(seat, _missing).keys.copy_(torch.cat(record.inputs)[:, :PREFIX])

    @torch.no_grad()
    def restore(self, model: LanguageModel, folder: Path) -> None:
        places = model.slot("decoder.attend")
        published = load_file(folder / self.file)["prompt_embeddings"]
        for seat, part in zip(places, published.chunk(len(places), 1), strict=True):
            self.layer(seat, _missing).keys.copy_(torch.stack(part.chunk(2, 1)))


class MoreKeys(Layer):
    """Puts learnt keys and values before those of the tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.randn(2, PREFIX, width))

    def run(self, context: Context, *inputs: Any) -> tuple[Any, ...]:
        q, k, v, *rest = inputs
        longer = [
            torch.cat([learnt.expand(len(q), -1, -1), given], dim=1)
            for learnt, given in zip(self.keys, (k, v), strict=True)
        ]
        return (q, *longer, *rest)


class Record(Layer):
    """Keeps the keys and values of the last call."""

    inputs: tuple[Tensor, ...] = ()

    def run(self, context: Context, *inputs: Any) -> tuple[Any, ...]:
        self.inputs = inputs[1:3]
        return inputs


class Later(Layer):
    """Moves tokens behind the learnt keys."""

    def run(self, context: Context, *inputs: Any) -> Tensor:
        return inputs[0] + PREFIX


class Bottleneck(Published):
    """Adds a small network behind every block (arXiv:2005.00247, section 3.1)."""

    file = "adapter.safetensors"

    def edits(self, model: Model) -> Iterable[Edit]:
        width = model.facts["width"]

        def behind(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(inner, Residual(self.layer(seat, lambda: _small(width))))

        return model.slot("decoder.block").wrap(behind, stage="output", name="bottleneck")

    def tensors(self, model: LanguageModel) -> Mapping[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for index, seat in enumerate(model.slot("decoder.block")):
            down, _, up = self.layer(seat, _missing)
            place = f"model.layers.{index}.output_adapters.adapters.{self.name}"
            for part, layer in (("adapter_down.0", down), ("adapter_up", up)):
                tensors[f"{place}.{part}.weight"] = layer.weight
                tensors[f"{place}.{part}.bias"] = layer.bias
        return tensors

    def config(self, model: LanguageModel) -> Mapping[str, Any]:
        return {
            "config": _SEQ_BN,
            "hidden_size": model.config.width,
            "model_class": "LlamaAdapterModel",
            "model_name": BASE,
            "model_type": model.config.family,
            "name": self.name,
            "version": "adapters.1.3.0",
        }


_SEQ_BN: dict[str, Any] = {
    "adapter_residual_before_ln": False,
    "architecture": None,
    "cross_adapter": False,
    "dropout": 0.0,
    "init_weights": "bert",
    "inv_adapter": None,
    "inv_adapter_reduction_factor": None,
    "is_parallel": False,
    "leave_out": [],
    "ln_after": False,
    "ln_before": False,
    "mh_adapter": False,
    "non_linearity": "relu",
    "original_ln_after": True,
    "original_ln_before": True,
    "output_adapter": True,
    "phm_layer": False,
    "reduction_factor": REDUCTION,
    "residual_before_ln": True,
    "scaling": 1.0,
    "use_gating": False,
}
"""The fields of AdapterHub's `seq_bn`, which puts x + h + A(x + h) in place of x + h."""


def _low_rank(seat: Seat) -> Chain:
    down = nn.Linear(seat.facts["in_features"], RANK, bias=False)
    up = nn.Linear(RANK, seat.facts["out_features"], bias=False)
    nn.init.zeros_(up.weight)
    return Chain(down, up)


def _small(width: int) -> Chain:
    down, up = nn.Linear(width, width // REDUCTION), nn.Linear(width // REDUCTION, width)
    nn.init.zeros_(up.weight)
    nn.init.zeros_(up.bias)
    return Chain(down, nn.ReLU(), up)


def _missing() -> nn.Module:
    raise AssertionError("layers are built by inject")
