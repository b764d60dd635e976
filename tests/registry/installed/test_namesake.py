"""The other distribution with our import name is noticed, with the command that removes it."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import refiners
from refiners.doctor import examine
from refiners.installed import namesake
from refiners.installed.distribution import distribution_of

from ..conftest import Site

REMOVE = "pip uninstall -y refiners && pip install --force-reinstall --no-deps refiners-core"
RESTORE = "pip install --force-reinstall --no-deps refiners-core"
SOURCES = [Path(refiners.__file__).parent, Path(refiners.__file__).parents[2] / "refiners_core"]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both packages as a wheel puts them into a folder of site packages."""
    folder = tmp_path_factory.mktemp("site")
    for source in SOURCES:
        leave = shutil.ignore_patterns("__pycache__", "models", "entries")
        shutil.copytree(source, folder / source.name, ignore=leave)
    return folder


def add_theirs(folder: Path) -> None:
    """Adds a file that only the other distribution has."""
    (folder / "refiners/fluxion").mkdir()
    (folder / "refiners/fluxion/__init__.py").touch()


def overwrite(folder: Path) -> None:
    """Installs the other distribution over ours."""
    add_theirs(folder)
    (folder / "refiners/__init__.py").write_text("")


def uninstall_theirs(folder: Path) -> None:
    """Uninstalls it, and with it the file that both have."""
    (folder / "refiners/__init__.py").unlink()


@pytest.fixture
def spoiled(copy: Path, tmp_path: Path) -> Callable[[Callable[[Path], None]], Path]:
    def spoil(change: Callable[[Path], None]) -> Path:
        shutil.copytree(copy, tmp_path, dirs_exist_ok=True)
        change(tmp_path)
        return tmp_path

    return spoil


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with a folder before everything else that is installed."""
    start = f"import sys; sys.path.insert(0, {str(folder)!r}); "
    command = [sys.executable, *arguments[:-1], "-c", start + arguments[-1]]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def test_importing_warns_in_the_words_that_remove_it_and_loads_no_torch(spoiled) -> None:
    folder = spoiled(add_theirs)
    process = run(folder, "import refiners; print(refiners.__file__, 'torch' in sys.modules)")
    assert process.stdout == f"{folder / 'refiners/__init__.py'} False\n"
    assert f"run {REMOVE}" in process.stderr
    assert "Notice" in process.stderr


def test_importing_never_raises(spoiled) -> None:
    process = run(
        spoiled(add_theirs), "-W", "error", "import refiners; print(refiners.NetworkError)"
    )
    assert (process.returncode, process.stderr) == (0, "")


MAIN = "from refiners.cli import main; main(['doctor', '--quick'], prog_name='refiners')"


@pytest.mark.parametrize(
    ("change", "command"),
    [(add_theirs, REMOVE), (overwrite, REMOVE), (uninstall_theirs, RESTORE)],
    ids=["added", "overwritten", "uninstalled"],
)
def test_the_shell_notes_it_and_the_doctor_ends_it(spoiled, change, command: str) -> None:
    process = run(spoiled(change), MAIN)
    assert process.returncode == 1, process.stderr
    assert "other distribution" in process.stdout
    assert command in " ".join(process.stdout.split())
    assert f"run {command}" in process.stderr


def test_the_doctor_knows_it_by_its_metadata_where_it_lies_elsewhere(site: Site) -> None:
    site.add("refiners", package="elsewhere", entry_points="", version="0.4.0")
    (problem,) = examine(is_probing=False)
    assert (problem.kind, problem.dist) == ("other distribution", "refiners")
    assert problem.what.startswith("version 0.4.0 of another project")
    assert problem.command == REMOVE


def test_nothing_is_noticed_where_ours_is_alone(site: Site) -> None:
    assert [*namesake.faults()] == []
    assert examine(is_probing=False) == ()


def test_hints_name_our_distribution_for_our_package() -> None:
    assert distribution_of("refiners") == distribution_of("refiners_core") == "refiners-core"
    assert distribution_of("refiners_edges") == "refiners-edges"
