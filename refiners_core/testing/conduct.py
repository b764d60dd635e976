"""The laws about what an adapter does beside its edits: to others, to torch, to its own tree."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module

from refiners_core.testing.case import AdapterCase, bits
from refiners_core.testing.evidence import expect, expect_same, hooks_of, methods_of

_TORCHS: Final = frozenset(vars(nn.Module()))
"""The attributes of every module, whose tensors are parameters and buffers."""


def leaves_others_alone(case: AdapterCase) -> None:
    """Checks that the adapter patches neither layers nor weights of another worn adapter."""
    model, adapter = case.bound()
    other = case.beside()
    other.inject(model)
    before = _parts(other)
    adapter.inject(model)
    expect_same(_parts(other), before, f"{adapter.key} patches the layers of {other.key}")
    case.run(model, case.conditions(adapter))
    expect_same(_parts(other), before, f"in a run, {adapter.key} patches the layers of {other.key}")
    adapter.eject()
    expect_same(_parts(other), before, f"ejected, {adapter.key} leaves a trace in {other.key}")


def keeps_no_tensors(case: AdapterCase) -> None:
    """Checks that a run leaves no tensor in the tree: values of a call travel in the context."""
    model, adapter = case.bound()
    case.run(model, {})
    adapter.inject(model)
    before = {name: id(tensor) for name, tensor in _tensors(model)}
    case.run(model, case.conditions(adapter))
    kept = [name for name, tensor in _tensors(model) if before.get(name) != id(tensor)]
    expect(not kept, f"after a run with {adapter.key} the tree keeps a tensor at {kept[:1]}")


def leaves_settings_alone(case: AdapterCase) -> None:
    """Checks that the adapter changes no setting of torch and turns no gradient on."""
    before = _settings()
    with torch.no_grad():  # so that a gradient mode that is left on differs
        within = _settings()
        model, adapter = case.model(), case.make()
        base = [(weight, weight.requires_grad) for weight in model.parameters()]
        adapter.inject(model)
        expect_same(_settings(), within, f"injecting {adapter.key} changes settings of torch")
        expect(
            all(weight.requires_grad == was_trained for weight, was_trained in base),
            f"{adapter.key} turns gradients of the base on or off",
        )
        output = case.run(model, case.conditions(adapter))
        expect_same(_settings(), within, f"a run with {adapter.key} changes settings of torch")
        expect(
            not any(tensor.requires_grad for tensor in _within(output)),
            f"without gradients, the output with {adapter.key} has one",
        )
        adapter.eject()
    expect_same(_settings(), before, f"{adapter.key} changes settings of torch")


def _settings() -> dict[str, Any]:
    return {
        "gradient mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "default dtype": torch.get_default_dtype(),
        "default device": str(torch.get_default_device()),
        "number of threads": torch.get_num_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "hooks of all modules": [
            list(table)
            for name, table in vars(module).items()
            if name.endswith("_hooks") and isinstance(table, dict)
        ],
        "functions": [id(function) for function in vars(functional).values()],
        "classes": [id(vars(kind).get("forward")) for kind in vars(nn).values() if _is_layer(kind)],
    }


def _is_layer(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


def _parts(adapter: nn.Module) -> dict[str, Any]:
    """Returns the layers, hooks and bits of the weights of an adapter."""
    layers = list(adapter.named_modules())
    return {
        "layers": [(name, id(layer), layer.training) for name, layer in layers],
        "children": [[id(child) for child in layer._modules.values()] for _, layer in layers],
        "hooks": [hooks_of(layer) for _, layer in layers],
        "methods": [methods_of(layer) for _, layer in layers],
        "weights": [
            (name, id(weight), weight.requires_grad, bits(weight))
            for name, weight in (*adapter.named_parameters(), *adapter.named_buffers())
            if weight.device.type != "meta"
        ],
    }


def _tensors(tree: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors that layers of a tree hold as buffers or plain attributes, by path."""
    for path, layer in tree.named_modules():
        values = {name: value for name, value in vars(layer).items() if name not in _TORCHS}
        for name, value in (values | layer._buffers).items():
            for number, tensor in enumerate(_within(value)):
                yield f"{path}.{name}[{number}]", tensor


def _within(value: Any, depth: int = 3) -> Iterator[Tensor]:
    """Yields the tensors in a value, or in nested tuples, lists, sets and tables."""
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, dict):
        for item in value.values():
            yield from _within(item, depth - 1)
    elif depth and isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _within(item, depth - 1)


CONDUCT: Final[Sequence[Callable[[AdapterCase], None]]] = (
    leaves_others_alone,
    keeps_no_tensors,
    leaves_settings_alone,
)
"""The laws about what an adapter does beside its edits, for `pytest.mark.parametrize`."""
