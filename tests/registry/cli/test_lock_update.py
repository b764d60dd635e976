"""Two commands that write one lock file at the same time lose no update."""

from pathlib import Path
from typing import Any

import pytest
import refiners.sync
from click.testing import CliRunner, Result
from filelock import FileLock
from refiners.choose.lock import Lock, read_lock
from refiners.cli import main
from refiners.host.exclusive import exclusive

from ..conftest import Site


def lock(path: Path, *names: str) -> Result:
    return CliRunner().invoke(main, ["lock", *names, "--out", str(path)])


@pytest.fixture
def toys(site: Site) -> Site:
    site.add_toy()
    site.add_edges()
    return site


def test_what_another_command_wrote_meanwhile_stays(
    toys: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "refiners.lock"
    lock_of = refiners.sync.lock_of

    def slow_lock_of(*arguments: Any, **options: Any) -> Lock:
        monkeypatch.setattr(refiners.sync, "lock_of", lock_of)
        assert lock(path, "toy").exit_code == 0
        return lock_of(*arguments, **options)

    monkeypatch.setattr(refiners.sync, "lock_of", slow_lock_of)
    result = lock(path, "edges")
    assert result.exit_code == 0, result.output
    assert [plugin.id for plugin in read_lock(path).plugin] == [
        "refiners-edges:edges",
        "refiners-toy:toy",
    ]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["refiners.lock"]


def test_a_lock_file_that_another_process_writes_is_waited_for(
    toys: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "my refiners.lock"
    monkeypatch.setattr(refiners.sync, "exclusive", lambda path: exclusive(path, 0.05))
    with FileLock(tmp_path / ".my refiners.lock.lock"):
        result = lock(path, "toy")
    assert (result.exit_code, path.exists()) == (1, False)
    assert f"rm '{tmp_path}/.my refiners.lock.lock'" in result.stderr
    assert lock(path, "toy").exit_code == 0


def test_a_folder_that_does_not_exist_is_reported_by_the_write(toys: Site, tmp_path: Path) -> None:
    result = lock(tmp_path / "nowhere" / "refiners.lock", "toy")
    assert (result.exit_code, "cannot be written" in result.stderr) == (4, True)


def test_hints_quote_paths_for_the_shell(toys: Site, tmp_path: Path) -> None:
    path = tmp_path / "my refiners.lock"
    assert lock(path, "toy").exit_code == 0
    path.write_text("[")
    result = CliRunner().invoke(main, ["sync", "--locked", "--lock", str(path)])
    assert f"refiners lock --out '{path}'" in result.stderr
