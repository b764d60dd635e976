"""Files of other schemes: one failing hook module does not keep the right one from a request."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from refiners.errors import NetworkError, OfflineError, PluginError, UnsupportedError
from refiners.hub.client import Hub
from refiners.manifest.schema import WeightsFile
from refiners.sources.hooked_file import fetch_hooked
from refiners.testing import LoopbackHub

from refiners_core.errors import Notice, WeightsError
from refiners_core.hookspecs import hookimpl, manager

DATA = b"data"
FILE = WeightsFile(
    source="shelf:7", file="a.bin", sha256=hashlib.sha256(DATA).hexdigest(), format="text"
)
Register = Callable[[str, Any], None]


@pytest.fixture
def client(hub: LoopbackHub) -> Hub:
    return Hub.from_environment()


@pytest.fixture
def register() -> Iterator[Register]:
    """A function that registers a hook module which calls a function."""
    names: list[str] = []

    def add(name: str, answer: Any) -> None:
        class Module:
            @hookimpl
            def fetch_weights(self, event: Any) -> Any:
                return answer(event) if callable(answer) else answer

        names.append(f"{name}:hooks")
        manager().register(Module(), names[-1])

    yield add
    for name in names:
        manager().unregister(name=name)


def raising(error: BaseException) -> Callable[[Any], Any]:
    def fail(event: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("error", [KeyError("x"), SystemExit(3), WeightsError("not mine.")])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_failing_hook_leaves_the_request_to_the_others(
    error: BaseException, is_first: bool, client: Hub, register: Register, tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(DATA)
    hooks = [("refiners-shelf", tmp_path / "a.bin"), ("refiners-broken", raising(error))]
    for name, answer in hooks if is_first else hooks[::-1]:  # pluggy asks the last one first
        register(name, answer)
    if is_first:
        with pytest.warns(Notice, match=r"fetch_weights of refiners-broken:hooks failed"):
            assert fetch_hooked(FILE, client, "refiners-x") == tmp_path / "a.bin"
    else:
        assert fetch_hooked(FILE, client, "refiners-x") == tmp_path / "a.bin"


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (KeyError("x"), PluginError, "by the hooks refiners-broken:hooks: KeyError: 'x'"),
        (SystemExit(3), PluginError, "SystemExit: 3"),
        (ConnectionError("refused"), NetworkError, "ConnectionError: refused"),
        (WeightsError("gone.", hint="Ask."), WeightsError, "gone. Ask."),
    ],
)
def test_a_hook_that_fails_alone_is_named(
    error: BaseException, kind: type[Any], words: str, client: Hub, register: Register
) -> None:
    register("refiners-broken", raising(error))
    with pytest.raises(kind) as caught:
        fetch_hooked(FILE, client, "refiners-x")
    assert words in str(caught.value)
    assert caught.value.dist == "refiners-broken"
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("answer", ["nowhere", b"\0", 7])
def test_an_answer_that_is_not_a_file_is_refused(
    answer: Any, client: Hub, register: Register
) -> None:
    register("refiners-broken", answer)
    with pytest.raises(PluginError, match="which is not a file"):
        fetch_hooked(FILE, client, "refiners-x")


def test_ctrl_c_is_the_users(client: Hub, register: Register) -> None:
    register("refiners-slow", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        fetch_hooked(FILE, client, "refiners-x")


def test_offline_it_is_the_network_that_is_missing(hub: LoopbackHub, register: Register) -> None:
    with pytest.raises(UnsupportedError, match="no installed hook module fetches shelf:"):
        fetch_hooked(FILE, Hub.from_environment(offline=True), "refiners-x")
    register("refiners-shelf", lambda event: None)
    with pytest.raises(OfflineError, match=r"shelf:7/a.bin is not on this machine"):
        fetch_hooked(FILE, Hub.from_environment(offline=True), "refiners-x")
