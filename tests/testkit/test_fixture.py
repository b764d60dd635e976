"""The fixtures of the kit, and its contract of base models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import refiners
from refiners.hub.client import Hub
from refiners.manifest.schema import WeightsFile
from refiners.testing import LoopbackHub
from refiners_playground.model import build
from refiners_testkit import ModelContract
from refiners_testkit.installation import IsolatedRegistry
from refiners_testkit.network import no_network

from refiners_core.testing import tiny_model as tiny_sd15

from .shade import written

ROOT = Path(__file__).parents[2]


def test_a_tiny_model_has_its_family(tiny_model: Callable[..., Any]):
    assert tiny_model("sdxl").base == "sdxl"
    assert tiny_model("language", layers=1).generate("a", max_new_tokens=1)
    with pytest.raises(pytest.fail.Exception, match="no tiny model has the family 'flux'"):
        tiny_model("flux")


def test_an_isolated_registry_knows_the_added_package_alone(
    isolated_registry: IsolatedRegistry, tmp_path: Path
):
    assert refiners.adapters() == ()
    with written(tmp_path / "tree"):
        isolated_registry.add(tmp_path / "tree")
        assert [plugin.id for plugin in refiners.adapters()] == ["refiners-shade:shade"]
        assert refiners.load_adapter("shade").name == "shade"


def test_the_loopback_hub_takes_the_place_of_the_real_one(loopback_hub: LoopbackHub):
    repository = loopback_hub.publish("org/name", {"a.txt": b"hello"})
    pins = {"revision": repository.commit, "sha256": repository.sha256("a.txt"), "size": 5}
    file = WeightsFile(source="hf:org/name", file="a.txt", format="text", **pins)
    with no_network() as hosts:
        path = Hub.from_environment(None).fetch(file, dist="refiners-x")
    assert (path.read_bytes(), hosts) == (b"hello", [])


class Playground(ModelContract):
    name = "playground"
    root = ROOT / "plugins/playground"

    def tiny(self) -> Any:
        return tiny_sd15(base="playground")


@pytest.mark.parametrize("check", ["builds_without_weights", "facts_are_those_of_the_manifest"])
def test_a_base_model_is_checked(check: str):
    getattr(Playground(), f"test_its_{check}" if "facts" in check else f"test_it_{check}")()


def test_a_fact_that_differs_is_named(monkeypatch: pytest.MonkeyPatch):
    def narrow(*arguments: Any, **options: Any) -> Any:
        model = build(*arguments, **options)
        model.facts = {**model.facts, "cross_attention_dim": 3}
        return model

    monkeypatch.setattr("refiners_playground.model.build", narrow)
    with pytest.raises(pytest.fail.Exception, match=r"cross_attention_dim = .*; the model, 3"):
        Playground().test_its_facts_are_those_of_the_manifest()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in dir(Playground) if name.startswith("test_")])
def test_the_playground_keeps_the_contract_of_models(name: str):
    if name not in ("test_the_examples_run", "test_its_layouts_go_both_ways"):
        getattr(Playground(), name)()
