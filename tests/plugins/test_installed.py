"""Every installed adapter keeps the contract on the playground, with its real weights."""

from collections.abc import Callable

import pytest
import refiners
import torch

from refiners_core import Model
from refiners_core.testing import LAWS, AdapterCase

SUITABLE = [
    (adapter.name, variant)
    for adapter in refiners.adapters()
    for variant in adapter.spec.variant
    if variant.base in ("playground", None)
    # Adapters without weights of their own keep it in their packages, on tiny models.
    and variant.files
]


def playground() -> Model:
    return refiners.load_model("playground")


def test_the_adapters_of_the_playground_are_installed():
    assert {name for name, _ in SUITABLE} >= {"controlnet-canny", "ip-adapter"}


def test_no_installed_plugin_is_broken():
    assert [str(plugin) for plugin in refiners.broken()] == []


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("name", "variant"), SUITABLE, ids=[name for name, _ in SUITABLE])
def test_an_installed_adapter_keeps_the_contract(
    name: str, variant: object, law: Callable[[AdapterCase], None]
):
    takes_condition = refiners.load_adapter(name).takes_condition
    picture = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1)).round()
    law(
        AdapterCase(
            lambda: refiners.load_adapter(name),
            playground,
            condition=picture if takes_condition else None,
            targets=[(target.slot, target.stage) for target in variant.targets],
        )
    )
