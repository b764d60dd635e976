"""Makes a source tree known to the registry, as if it were installed, or hides all others."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from refiners.installed import inventory
from refiners.installed.distribution import distributions

from refiners_testkit.subject import Subject, subject_of


def _announce(subject: Subject, folder: Path) -> None:
    """Writes the metadata of a distribution for a source tree, without building it."""
    info = folder / f"{subject.dist.replace('-', '_')}-{subject.version}.dist-info"
    info.mkdir(parents=True)
    head = f"Metadata-Version: 2.1\nName: {subject.dist}\nVersion: {subject.version}\n"
    (info / "METADATA").write_text(head, "utf-8")
    points: dict[str, dict[str, str]] = subject.project.get("entry-points", {})
    lines = [
        line
        for group, table in points.items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in table.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join([*lines, ""]), "utf-8")


@contextmanager
def installed(subject: Subject) -> Generator[None]:
    """Makes the registry and imports find a source tree for the length of a `with` block."""
    with TemporaryDirectory(prefix="refiners-tree-") as folder:
        _announce(subject, Path(folder))
        with patch.object(sys, "path", [folder, str(subject.source), *sys.path]):
            yield


class IsolatedRegistry:
    """A registry that knows only the packages which a test adds.

    Attributes:
        folder: The folder with the metadata of the packages.
        sources: The folders of their code.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sources: list[Path] = []
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, tree: Path) -> Subject:
        """Makes the package of a source tree known and importable, and returns it.

        Args:
            tree: The folder of the `pyproject.toml`.
        """
        subject = subject_of(tree.resolve() / "_")
        _announce(subject, self.folder)
        self.sources.append(subject.source)
        sys.path.insert(0, str(subject.source))
        return subject


@contextmanager
def isolated(folder: Path) -> Generator[IsolatedRegistry]:
    """Hides all installed packages from the registry for the length of a `with` block.

    Args:
        folder: The folder for the metadata of packages.
    """
    before = set(sys.modules)
    registry = IsolatedRegistry(folder)
    with (
        patch.object(sys, "path", [str(folder), *sys.path]),
        patch.object(inventory, "distributions", lambda: distributions([str(folder)])),
    ):
        yield registry
    for name in set(sys.modules) - before:
        home = Path(str(getattr(sys.modules[name], "__file__", None) or folder))
        if any(home.is_relative_to(source) for source in registry.sources):
            del sys.modules[name]
