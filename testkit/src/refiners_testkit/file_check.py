"""The checks of an adapter's file: saving, loading, strictness, and one key for each tensor."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from refiners_core import Adapter, Source
from refiners_core.errors import AdapterError, RefinersError
from refiners_core.surgery.source import Weights
from refiners_core.testing import AdapterCase
from refiners_core.testing.case import bits
from refiners_core.weights import read, write
from refiners_testkit.check import check, expect, fail, not_run

_UNKNOWN = "a_key.that_nobody.knows.weight"


class FileChecks:
    """The checks of saving and loading."""

    def make(self, base: str, weights: Weights | None = None) -> Adapter:
        """Builds the adapter for a base."""
        raise NotImplementedError

    def cases(self) -> Iterator[tuple[str, AdapterCase]]:
        """Yields the name and the case of each base."""
        raise NotImplementedError

    def source(self, path: Path, base: str) -> Source:
        """Returns the source of an adapter whose file was saved by itself.

        Args:
            path: The file.
            base: The base of the model.
        """
        return Source({"weights": path}, {}, base)

    @check("save-and-load")
    def test_what_it_saves_it_loads(self) -> None:
        """Checks that a saved adapter is loaded bit for bit, and saved again as the same file."""
        for base, case, path in self._saved(is_required=True):
            model, adapter = case.bound()
            adapter.save(path)
            again, other = self._loaded(path, base), case.model()
            _inject(again, other, base)
            adapter.inject(model)
            before = bits(case.run(model, case.conditions(adapter)))
            after = bits(case.run(other, case.conditions(again)))
            hint = "published() writes what build() reads."
            expect(
                before == after, f"on {base}: saved and loaded, the adapter acts otherwise.", hint
            )
            again.save(second := path.with_name("second.safetensors"))
            first, rest = _keyless(read(path), adapter), _keyless(read(second), again)
            expect(first == rest, f"on {base}: saved again, its file differs.", hint)

    @check("strict-loading")
    def test_it_refuses_a_file_with_other_keys(self) -> None:
        """Checks that unknown and missing keys are refused by name, and the model stays bare."""
        for base, case, path in self._saved():
            _, adapter = case.bound()
            adapter.save(path)
            tensors = read(path)
            for changed, key, verb in _changed_files(tensors):
                write(changed, path)
                model = case.model()
                what = f"on {base}: a file with {verb} key, {key}, is accepted."
                hint = "Load with refiners_core.weights.load, which lists such keys."
                try:
                    self._loaded(path, base).inject(model)
                except RefinersError as error:
                    named = f"on {base}: the error for {verb} key, {key}, does not name it: {error}"
                    expect(_names(str(error), key), named, hint)
                    expect(not model.adapters, "a refused file leaves the model dressed.", hint)
                except Exception as error:
                    fail(f"on {base}: {verb} key raises {type(error).__name__}: {error}", hint)
                else:
                    fail(what, hint)

    @check("key-map")
    def test_each_tensor_has_a_key_of_its_own(self) -> None:
        """Checks that distinct tensors are saved under distinct keys, so that none is lost."""
        for base, case, path in self._saved():
            _, adapter = case.bound()
            noise = torch.Generator().manual_seed(11)
            with torch.no_grad():
                for weight in adapter.parameters():
                    weight.copy_(torch.randn(weight.shape, generator=noise))
            adapter.save(path)
            again = self._loaded(path, base)
            hint = "Make the KeyMap one to one: no two of our names lead to one published name."
            _inject(again, case.model(), base, hint)
            before, after = dict(adapter.named_parameters()), dict(again.named_parameters())
            lost = [k for k, x in before.items() if k not in after or not torch.equal(x, after[k])]
            what = f"on {base}: {' and '.join(lost[:2])} come back otherwise than they were saved."
            expect(not lost, f"{what} Two of them may have one key.", hint)

    def _loaded(self, path: Path, base: str) -> Adapter:
        return self.make(base, lambda _: self.source(path, base))

    def _saved(self, *, is_required: bool = False) -> Iterator[tuple[str, AdapterCase, Path]]:
        """Yields each base on which the adapter can be saved, with the path for its file.

        Args:
            is_required: Whether an adapter with weights has to have a layout for them.
        """
        for base, case in self.cases():
            _, adapter = case.bound()
            if next(adapter.parameters(), None) is None:
                not_run("the adapter has no weights")
            with TemporaryDirectory(prefix="refiners-file-") as folder:
                path = Path(folder) / "first.safetensors"
                try:
                    adapter.save(path)
                except AdapterError as error:
                    if not is_required:
                        not_run(f"the adapter cannot be saved: {error.message}")
                    fail(f"on {base}: it has weights but cannot be saved.", str(error.hint))
                except RefinersError as error:
                    hint = "Each tensor has a key of its own."
                    fail(f"on {base}: its weights cannot be saved: {error}", hint)
                yield base, case, path


def _changed_files(tensors: Mapping[str, Tensor]) -> Iterator[tuple[dict[str, Tensor], str, str]]:
    """Yields files that differ in a key, with the key and how it differs."""
    names = sorted(tensors)
    beside = f"{names[-1].rpartition('.')[0]}.{_UNKNOWN}".lstrip(".")
    for name in dict.fromkeys((_UNKNOWN, beside)):
        yield {**tensors, name: torch.zeros(2)}, name, "an unknown"
    for name in dict.fromkeys((names[0], names[len(names) // 2], names[-1])):
        yield {key: tensor for key, tensor in tensors.items() if key != name}, name, "a missing"


def _inject(adapter: Adapter, model: Any, base: str, hint: str = "") -> None:
    try:
        adapter.inject(model)
    except Exception as error:
        fail(
            f"on {base}: the file that it saved cannot be loaded: {type(error).__name__}: {error}",
            hint or "published() writes what build() reads; define source() for more files.",
        )


def _keyless(tensors: Mapping[str, Tensor], adapter: Adapter) -> dict[str, Any]:
    """Returns the bits of tensors by name, without the key of the adapter that names may have."""
    return {name.replace(adapter.key, ""): bits(x) for name, x in tensors.items()}


def _names(text: str, key: str) -> bool:
    """Whether an error names a key: all of it, or its layer or its tensor."""
    layer, _, tensor = key.rpartition(".")
    part = f"{layer.rpartition('.')[2]}.{tensor}"
    return any(name and name in text for name in (key, layer, part))
