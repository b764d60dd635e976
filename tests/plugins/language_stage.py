"""Tiny language models of every family, and random adapters in the layouts that are published."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import peft
import refiners
import torch
from refiners.choose.variant import variant_for
from refiners.errors import IncompatibleError
from refiners.installed.inventory import Installed
from refiners_bottleneck.adapter import Bottleneck
from refiners_bottleneck.fusion import fuse
from refiners_playground.writer import FOLDER
from transformers import AutoModelForCausalLM

from refiners_core import Adapter
from refiners_core.models.decoder import LanguageModel, load_decoder

from ..parity import decoder_peer, test_peft_decoder, test_peft_language
from .stage import Fault

FAMILIES: Final = ("llama", "qwen2", "qwen3", "mistral", "gemma2", "gpt2", "playground-writer")
LORAS: Final = (
    *("LoRA", "LoRA with biases", "LoRA of both tables", "rsLoRA with patterns", "DoRA"),
    *("saved modules", "saved norms", "trained tokens beside LoRA", "trained tokens", "AdaLoRA"),
    *("IA3", "LoHa", "LoKr", "OFT", "BOFT"),
)
"""The forms of files that the adapter `lora` reads."""
BOTTLENECKS: Final[Mapping[str, Mapping[str, Any]]] = {
    "seq_bn": {"config": "seq_bn", "reduction_factor": 4},
    "double_seq_bn": {"config": "double_seq_bn", "reduction_factor": 8},
    "scaled_par_bn": {"config": "scaled_par_bn"},
    "compacter": {"config": "compacter", "reduction_factor": 4},
}


class Origin:
    """A model, and the model of transformers from which PEFT makes adapters of it.

    Args:
        family: A kind of `decoder_peer.KINDS`, or `playground-writer`.
        folder: An empty folder for files.
    """

    def __init__(self, family: str, folder: Path) -> None:
        self.family, self.folder = family, folder
        if family == "playground-writer":
            self.peer: Any = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
            self.model: LanguageModel = refiners.load_model(family)
            self.kind = "llama"
        else:
            self.peer, self.kind = decoder_peer.peer_of(family), family
            self.model = load_decoder(decoder_peer.publish(self.peer, folder / "model"))
        self.peer.eval().requires_grad_(False)

    def path(self, form: str) -> Path:
        """Returns the folder of a form."""
        return self.folder / form.replace(" ", "-").replace(",", "")


def _lora(origin: Origin, form: str) -> Adapter:
    config = test_peft_decoder.CONFIGS[form](origin.kind)
    pair = test_peft_decoder.Pair(origin.kind, origin.peer, origin.model)
    test_peft_decoder.trained(pair, config, origin.path(form))
    return _read(origin, form)


def _peft(origin: Origin, form: str) -> Adapter:
    config = test_peft_language.configs(form, origin.kind)[0]
    worn = peft.get_peft_model(copy.deepcopy(origin.peer), config)
    noise = torch.Generator().manual_seed(1)
    for weight in worn.parameters():
        if weight.requires_grad:
            weight.data = torch.randn(weight.shape, generator=noise) * 0.4
    worn.save_pretrained(origin.path(form))
    return _read(origin, form)


def _bottleneck(origin: Origin, form: str, config: str = "", seed: int = 2) -> Adapter:
    with _random(Bottleneck(**BOTTLENECKS[config or form]), origin.model, seed) as adapter:
        adapter.save(origin.path(form))
    return _read(origin, form)


def _fusion(origin: Origin, form: str) -> Adapter:
    members: list[Any] = [_bottleneck(origin, f"member {i}", "seq_bn", i) for i in range(2)]
    with _random(fuse(*members), origin.model) as fusion:
        fusion.save(origin.path(form))
    return _read(origin, form, adapters=members)


def _random(adapter: Any, model: LanguageModel, seed: int = 2) -> Any:
    """Gives random weights to an adapter, and returns it for a `with` in which it is worn."""
    adapter.inject(model).eject()
    noise = torch.Generator().manual_seed(seed)
    for weight in adapter.parameters():
        weight.data = weight.data + torch.randn(weight.shape, generator=noise) * 0.3
    return adapter.on(model)


def _read(origin: Origin, form: str, **options: Any) -> Any:
    path = origin.path(form)
    return refiners.load_adapter(str(path), key=path.name, **options)


Maker = Callable[[Origin, str], Adapter]
FILES: Final[Mapping[str, Mapping[str, Maker]]] = {
    "lora": dict.fromkeys(LORAS, _lora),
    "prefix-tuning": {"prefix-tuning": _peft},
    "prompt-tuning": {"prompt-tuning": _peft, "p-tuning": _peft},
    "vera": {"vera": _peft},
    "ln-tuning": {"ln-tuning": _peft},
    "fourier-ft": {"fourier-ft": _peft},
    "bottleneck": dict.fromkeys(BOTTLENECKS, _bottleneck),
    "adapter-fusion": {"fusion": _fusion},
}
"""For each adapter without published weights, the forms of its files, and what writes a random file
of a form and reads it."""


def suitable(model: LanguageModel) -> list[Installed[Any]]:
    """Returns the installed adapters that go on a language model, by name."""

    def suits(plugin: Installed[Any]) -> bool:
        try:
            variant = variant_for(plugin, model)
        except IncompatibleError:
            return False
        return any(target.slot.startswith("decoder.") for target in variant.targets)

    return [plugin for plugin in refiners.adapters() if suits(plugin)]


def adapters_of(origin: Origin, only: Sequence[str] | None = None) -> dict[str, Adapter]:
    """Returns adapters of every installed package that suit a model, by form; none is worn.

    Args:
        origin: The model.
        only: The forms; all by default.

    Raises:
        Fault: An adapter has neither published weights nor files, or another reads its file.
    """
    adapters: dict[str, Adapter] = {}
    for plugin in suitable(origin.model):
        name = plugin.name
        if variant_for(plugin, origin.model).weights:
            makers: Mapping[str, Maker] = {name: _published}
        elif name in FILES:
            makers = FILES[name]
        else:
            raise Fault(f"{name} has no weights; give it files in FILES")
        for form, make in makers.items():
            is_left_out = origin.kind == "gpt2" and form.startswith(test_peft_decoder.NOT_GPT2)
            if is_left_out or not (only is None or form in only):
                continue
            adapter = adapters[form] = make(origin, form)
            if adapter.name != name:
                raise Fault(f"the file of {form} is read by {adapter.name}, not {name}")
    return adapters


def _published(origin: Origin, form: str) -> Adapter:
    return refiners.load_adapter(form, origin.model).eject()
