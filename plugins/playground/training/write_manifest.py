"""Writes the sizes and checksums of trained weights into the manifests of installed packages."""

import hashlib
import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

GROUPS = ("refiners.models", "refiners.adapters")
"""The entry points that name manifests."""
ENTRY = re.compile(
    r'(source = "pkg:(?P<module>\w+)/(?P<file>weights/[^"]+)"\n(?:(?!sha256)\S.*\n)*)'
    r'sha256 = "\w*"\nsize = \d+\n'
)


def renewed(manifest: str) -> str:
    """Returns a manifest with the present sizes and checksums of files in packages.

    A file that is not trained yet keeps its entry.
    """

    def entry(match: re.Match[str]) -> str:
        path = weights_of(match["module"]).parent / match["file"]
        if not path.is_file():
            return match[0]
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        return f'{match[1]}sha256 = "{digest}"\nsize = {len(content)}\n'

    return ENTRY.sub(entry, manifest)


def weights_of(module: str) -> Path:
    """Returns the folder of weights of an installed package."""
    return Path(str(files(module))) / "weights"


def manifests() -> Iterator[Path]:
    """Yields the manifests of installed packages that name weights of packages."""
    values = {point.value for group in GROUPS for point in entry_points(group=group)}
    for value in sorted(values):
        module, _, name = value.partition(":")
        path = Path(str(files(module))) / name
        if path.is_file() and ENTRY.search(path.read_text("utf-8")):
            yield path


def renew() -> list[Path]:
    """Rewrites the manifests that are not true to their files, and returns their paths."""
    written: list[Path] = []
    for path in manifests():
        before = path.read_text("utf-8")
        after = renewed(before)
        if after != before:
            path.write_text(after, "utf-8")
            written.append(path)
    return written


if __name__ == "__main__":
    for path in renew():
        print(f"renewed {path}")
