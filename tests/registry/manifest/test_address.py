"""Addresses of Hub repositories, including revisions with slashes."""

import pytest
import refiners
from refiners.hub.client import Hub
from refiners.manifest.address import parse_address, readings
from refiners.sources.repository import find_repository
from refiners.testing import LoopbackHub, safetensors_of

pytestmark = pytest.mark.filterwarnings("ignore::refiners.errors.Notice")


def test_a_revision_may_have_a_slash() -> None:
    assert parse_address("hf:o/r@refs/pr/1") == ("o/r", "refs/pr/1", "")
    assert parse_address("hf:o/r@refs/convert/parquet/a/b.json") == (
        "o/r",
        "refs/convert/parquet",
        "a/b.json",
    )
    assert parse_address("hf:o/r@feature%2Fx%2fy/a.json") == ("o/r", "feature/x/y", "a.json")


def test_a_commit_in_upper_case_is_a_commit() -> None:
    assert parse_address(f"hf:o/r@{'A' * 40}/a.json") == ("o/r", "a" * 40, "a.json")
    assert parse_address("hf:o/r@MAIN").revision == "MAIN"


def test_an_ambiguous_address_has_several_readings() -> None:
    assert [(a.revision, a.path) for a in readings(parse_address("hf:o/r@v/x/a"))] == [
        ("v", "x/a"),
        ("v/x", "a"),
        ("v/x/a", ""),
    ]
    for certain in ("hf:o/r/a/b", "hf:o/r@main/a/b", f"hf:o/r@{'a' * 40}/a/b"):
        assert [*readings(parse_address(certain))] == [parse_address(certain)]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf:org/m@refs/pr/1", "org/m has no revision refs/pr/1."),
        ("hf:org/m@feature%2Fx", "org/m has no revision feature/x."),
        ("hf:org/m@feature/x", "org/m has no revision feature, nor feature/x."),
        ("hf:org/m@" + "b" * 40 + "/x", f"org/m has no revision {'b' * 40}."),
    ],
)
def test_the_error_names_the_missing_revision(hub: LoopbackHub, address: str, message: str) -> None:
    hub.publish("org/m", {"m.safetensors": safetensors_of({"w": [1.0]})})
    with pytest.raises(refiners.MissingError) as caught:
        find_repository(address, Hub.from_environment())
    assert str(caught.value).startswith(message)


def test_a_branch_with_a_slash_is_found(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = hub.publish("org/m", {"a/m.safetensors": safetensors_of({"w": [1.0]})})
    revisions: list[str] = []
    contents = Hub.contents

    def with_branch(self: Hub, repository: str, revision: str) -> object:
        revisions.append(revision)
        is_branch = revision == "feature/x"
        return contents(self, repository, repo.commit if is_branch else revision)

    monkeypatch.setattr(Hub, "contents", with_branch)
    address = "hf:org/m@feature/x/a/m.safetensors"
    for _ in range(2):  # the second time from the receipts
        model = find_repository(address, Hub.from_environment())
        assert [file.file for file in model.spec.weights.values()] == ["a/m.safetensors"]
    assert revisions == ["feature", "feature/x"]
    with pytest.raises(refiners.MissingError, match="does not exist"):
        find_repository("hf:org/none@feature/x", Hub.from_environment())
    assert revisions[2:] == ["feature"]
