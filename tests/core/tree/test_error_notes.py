"""Error notes: a failing call reports its place in the tree, and its exception is unchanged."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from refiners_core import (
    Chain,
    Concatenate,
    Context,
    Distribute,
    Lambda,
    Parallel,
    Passthrough,
    Residual,
    Scope,
    Sum,
    UseContext,
    When,
)
from refiners_core.tree.show import summary

from ..trees import EditSpec, RandomAdapter


class Fails(nn.Module):
    """Raises a given exception."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def forward(self, *inputs: Any) -> Any:
        raise self.error


def note_of(tree: nn.Module, *inputs: Any, **options: Any) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011  the type is asserted where it matters
        tree(*inputs, **options)
    notes = caught.value.__notes__
    assert len(notes) == 1, notes
    return notes[0]


def path_in(note: str) -> str:
    return note.splitlines()[0].partition(" at ")[2].rstrip(":")


x = torch.ones(2, 4)


class OddError(Exception):
    """An exception whose constructor takes no message, so that it cannot be rebuilt."""

    def __init__(self, *, code: int) -> None:
        super().__init__()
        self.code = code


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        torch.AcceleratorError("CUDA error", 2),
        ValueError("wrong"),
        StopIteration(),
        OddError(code=3),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_same_exception_object_is_raised(error):
    with pytest.raises(type(error)) as caught:
        Chain(a=Residual(b=Fails(error)))(x)
    assert caught.value is error
    (note,) = error.__notes__
    assert path_in(note) == "a.b"


def test_an_exception_that_is_not_an_error_is_not_annotated():
    for stop in (KeyboardInterrupt(), SystemExit(3)):
        with pytest.raises(type(stop)) as caught:
            Chain(Fails(stop))(x)
        assert not hasattr(caught.value, "__notes__")


COMBINATORS: dict[str, Callable[[nn.Module], Chain]] = {
    "Chain": lambda leaf: Chain(leaf=leaf),
    "Residual": lambda leaf: Residual(nn.Identity(), leaf=leaf),
    "Sum": lambda leaf: Sum(nn.Identity(), leaf=leaf),
    "Parallel": lambda leaf: Parallel(nn.Identity(), leaf=leaf),
    "Distribute": lambda leaf: Chain(Parallel(nn.Identity(), nn.Identity()),
                                     leaf=Distribute(nn.Identity(), leaf=leaf)),
    "Concatenate": lambda leaf: Concatenate(nn.Identity(), leaf=leaf),
    "Passthrough": lambda leaf: Passthrough(nn.Identity(), leaf=leaf),
    "Scope": lambda leaf: Scope(nn.Identity(), leaf=leaf),
    "When": lambda leaf: When("on", nn.Identity(), leaf=leaf),
    "Sequential": lambda leaf: Chain(leaf=nn.Sequential(nn.Identity(), leaf)),
}  # fmt: skip


@pytest.mark.parametrize("outer", COMBINATORS)
@pytest.mark.parametrize("inner", COMBINATORS)
@pytest.mark.parametrize("is_hooked", [False, True])
def test_the_place_is_right_in_every_combinator(outer, inner, is_hooked):
    if (outer, inner) == ("Sequential", "When"):
        return  # containers of torch do not pass the context on, so nothing runs and nothing fails
    tree = Chain(nn.Identity(), block=COMBINATORS[outer](COMBINATORS[inner](nn.Linear(5, 5))))
    if is_hooked:
        for layer in tree.modules():
            layer.register_forward_hook(lambda *_: None)
    note = note_of(tree, x, context={"on": 1})
    layer = tree
    for name in path_in(note).split("."):
        layer = layer._modules[name]
    assert isinstance(layer, nn.Linear), note
    assert "Linear(5, 5)  <- here" in note
    assert note.splitlines()[-1] == "Linear got Tensor[2, 4] float32 cpu, 1 to 1"


def test_the_note_shows_the_way_down():
    tree = Chain(down=Residual(nn.SiLU(), conv=nn.Linear(5, 5)))
    assert note_of(tree, x) == "\n".join(
        [
            "In Chain, at down.conv:",
            "  down: Residual",
            "    conv: Linear(5, 5)  <- here",
            "Linear got Tensor[2, 4] float32 cpu, 0.731 to 0.731",
        ]
    )


def test_a_leaf_of_distribute_is_reported_with_its_input():
    note = note_of(Distribute(nn.Identity(), nn.Linear(5, 5)), x, 2 * x)
    assert note.endswith("Linear got Tensor[2, 4] float32 cpu, 2 to 2")


def test_layers_of_adapters_are_reported_by_their_names():
    tree = Chain(block=Chain(conv=nn.Linear(4, 4)))
    adapter = RandomAdapter([EditSpec("wrap", 1)], key="lora").inject(tree)
    adapter.own_layers["block/conv"]["0"].forward = Fails(ValueError("own")).forward
    assert path_in(note_of(tree, x)) == "block.conv+w0@lora.Shift_1"


def test_a_failure_in_the_root_is_reported_too():
    note = note_of(Distribute(nn.Identity()), x, x)
    assert note.startswith("In Distribute, at the root:")
    assert "Distribute got Tensor[2, 4]" in note


def test_a_layer_in_two_seats_is_reported_with_both():
    layer = Lambda(lambda x: x / 0 if float(x.sum()) > 10 else x + 1)
    layer.function = lambda x: 1 / 0
    assert path_in(note_of(Chain(a=layer, b=layer), x)) == "a or b"


class CallsFromOutside(Chain):
    """Calls its child by `__call__`, with a new context."""

    def run(self, context: Context, *inputs: Any) -> Any:
        return self[0](*inputs)


def test_nested_calls_from_outside_leave_one_note_with_the_whole_path():
    tree = Chain(a=CallsFromOutside(Chain(b=CallsFromOutside(Chain(c=nn.Linear(5, 5))))))
    assert path_in(note_of(tree, x)) == "a.Chain_0.b.Chain_0.c"


def test_a_tree_called_by_a_function_of_another_leaves_one_note_about_both():
    inner = Chain(c=nn.Linear(5, 5))
    note = note_of(Chain(a=Residual(f=Lambda(lambda value: inner(value)))), x)
    assert note.startswith("In Chain, at c:")
    assert note.endswith("Called in Chain, at a.f")


def test_notes_of_others_are_kept():
    error = ValueError("wrong")
    error.add_note("theirs")
    with pytest.raises(ValueError, match="wrong"):
        Chain(Fails(error))(x)
    assert error.__notes__[0] == "theirs"
    assert len(error.__notes__) == 2


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (torch.empty(2, 0), "Tensor[2, 0] float32 cpu"),
        (torch.empty(2, device="meta"), "Tensor[2] float32 meta"),
        (torch.ones(2, dtype=torch.bfloat16), "Tensor[2] bfloat16 cpu, 1 to 1"),
        (torch.tensor([1.0, float("nan")]), "Tensor[2] float32 cpu, 1 of 2 not finite"),
        (torch.ones(2, dtype=torch.int64), "Tensor[2] int64 cpu"),
        (torch.ones(2, dtype=torch.complex64), "Tensor[2] complex64 cpu"),
        (torch.ones(2, requires_grad=True), "Tensor[2] float32 cpu, 1 to 1"),
        (torch.tensor(3.0), "Tensor[] float32 cpu, 3 to 3"),
        (torch.eye(2).to_sparse(), "Tensor[2, 2] float32 cpu"),
        (None, "NoneType"),
        ("words", "str"),
        ({"a": 1}, "dict"),
    ],
)
def test_any_input_is_summarised(value, shown):
    assert summary(value) == shown
    note = note_of(Chain(leaf=Fails(ValueError("wrong"))), value)
    assert path_in(note) == "leaf"
    assert note.endswith(f"got {shown}")


def test_a_tensor_that_cannot_be_read_is_still_named():
    class Shy(Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            if function is torch.isfinite:
                raise torch.OutOfMemoryError("no room even for this")
            return super().__torch_function__(function, types, args, kwargs or {})

    assert summary(torch.ones(2).as_subclass(Shy)) == "Tensor[2] float32 cpu"


def test_a_note_that_cannot_be_made_does_not_hide_the_error(monkeypatch):
    class Unprintable(nn.Linear):
        def extra_repr(self) -> str:
            raise RuntimeError("cannot be printed")

    note = note_of(Chain(Unprintable(5, 5)), x)
    assert "could not be determined" in note


def test_the_place_is_right_in_every_thread():
    tree = Chain(a=Lambda(lambda value: value), b=Chain(c=UseContext("key"), d=nn.Linear(4, 4)))
    tree.a.function = torch.neg
    notes: dict[int, str] = {}

    def work(i: int) -> None:
        given = {"key": torch.ones(2, 4 + i % 2)}
        try:
            tree(x, context=given)
        except RuntimeError as error:
            notes[i] = error.__notes__[0]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(notes) == [1, 3, 5, 7]
    assert {path_in(note) for note in notes.values()} == {"b.d"}


def test_a_missing_value_deep_in_a_scope_is_reported_with_its_place():
    tree = Chain(Sum(nn.Identity(), Scope(text=UseContext("text"), rebind={"text": "identity"})))
    assert path_in(note_of(tree, x)) == "Sum_0.Scope_1"  # the scope reads the value to rebind
    assert path_in(note_of(tree[0][1][:], x)) == "text"
