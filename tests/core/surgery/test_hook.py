"""Hooks see every inject and eject, and an exception of one names its package."""

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from refiners_core import Adapter, Chain, hookspecs, select


class Doubled(Adapter):
    def edits(self, model: Chain) -> Any:
        return select(model).of(nn.Linear).wrap(lambda inner, seat: Chain(inner, nn.Identity()))


@pytest.mark.parametrize("hook", ["before_inject", "after_inject", "before_eject", "after_eject"])
def test_an_error_of_a_hook_names_its_package(hook: str):
    def refuse(event: Any) -> None:
        raise ValueError("no")

    plugin = SimpleNamespace(**{hook: hookspecs.hookimpl(refuse)})
    model, adapter = Chain(nn.Linear(1, 1)), Doubled(name="doubled")
    if hook.endswith("eject"):
        adapter.inject(model)
    hookspecs.manager().register(plugin, "refiners-guard:watch")
    try:
        with pytest.raises(ValueError, match="no") as caught:
            getattr(adapter, hook.partition("_")[2])(*[model][: hook.endswith("inject")])
    finally:
        hookspecs.manager().unregister(plugin)
    (note,) = caught.value.__notes__
    assert note.startswith(f"Raised by the hook {hook} of refiners-guard:watch.")
    assert note.endswith("pip uninstall refiners-guard")
