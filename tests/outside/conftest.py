from collections.abc import Iterator
from pathlib import Path

import pytest
from refiners.testing import LoopbackHub

from .environment import PACKAGES, Environment, build, first_party

PLUGINS = ("playground", "controlnet", "ipadapter", "lora")


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the core, the testkit and four plugins, and a folder with all wheels."""
    folder = tmp_path_factory.mktemp("outside")
    wheels = folder / "wheels"
    wheels.mkdir()
    environment = Environment.create(folder / "environment", wheels)
    outside = [PACKAGES / name for name in ("warmth", "studio", "civitai")]
    build([*first_party(*PLUGINS), *outside], wheels, environment)
    environment.install(*(f"refiners-{name}" for name in ("core", "testkit", *PLUGINS)))
    return environment


@pytest.fixture
def hub(environment: Environment, tmp_path: Path) -> Iterator[LoopbackHub]:
    """A loopback Hub, which the processes of the environment use with an empty cache."""
    with LoopbackHub() as hub:
        online = {"HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_loopback"}
        environment.variables.update(hub.environment(tmp_path / "hub") | online)
        yield hub
    environment.variables.clear()


@pytest.fixture(scope="module")
def clean(environment: Environment) -> Iterator[None]:
    """Asserts that a module leaves the environment as it was: packages, files, lists, advice."""
    before = _state(environment)
    yield
    assert _state(environment) == before


def _state(environment: Environment) -> list[object]:
    files = {str(path.relative_to(environment.site)) for path in environment.site.rglob("*")}
    return [
        environment.names(),
        {name for name in files if "__pycache__" not in name},
        environment.report("refiners", "list"),
        environment.run("refiners", "doctor", code=None).out,
    ]
