"""A loopback Hub that serves the files of a package's manifest in miniature."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import pytest
from refiners.installed import inventory
from refiners.installed.distribution import distributions
from refiners.testing import LoopbackHub

WIDTHS = {"_dim = 768": "_dim = 16", "_dim = 2048": "_dim = 40"}
"""The widths of texts in the tiny pipelines, in place of the released ones."""


@contextmanager
def serving(
    folder: Path,
    content: Mapping[str, Mapping[tuple[str, str], bytes]],
    widths: Mapping[str, str] = WIDTHS,
) -> Iterator[LoopbackHub]:
    """Serves files by package, repository and path; the manifests are as they are, pins and widths
    apart."""
    with LoopbackHub() as hub, hub.in_use(folder / "hf"), pytest.MonkeyPatch.context() as patch:
        for package, served in content.items():
            manifest = (files(package) / "adapter.toml").read_text()
            for (repository, path), data in served.items():
                others = {p: d for (r, p), d in served.items() if r == repository}
                commit = hub.publish(repository, others).commit
                place = rf'(source = "hf:{re.escape(repository)}"\n)revision = ".*"\n'
                place += rf'(file = "{re.escape(path)}"\n)sha256 = ".*"\n(size = .*\n)?'
                digest = hashlib.sha256(data).hexdigest()
                pinned = rf'\1revision = "{commit}"\n\2sha256 = "{digest}"\n'
                manifest, count = re.subn(place, pinned, manifest)
                assert count == 1, f"the manifest names {repository}/{path}"
            for released, tiny in widths.items():
                manifest = manifest.replace(released, tiny)
            install(folder, f"tiny_{package}", manifest)
        patch.syspath_prepend(str(folder))
        patch.setattr(inventory, "distributions", lambda: distributions([str(folder)]))
        yield hub


def install(folder: Path, package: str, manifest: str) -> None:
    """Writes a package with a manifest into a folder, as pip installs it."""
    (folder / package).mkdir()
    (folder / package / "adapter.toml").write_text(manifest)
    (folder / package / "__init__.py").touch()
    name = package.replace("_", "-")
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[refiners.adapters]\nx = {package}:adapter.toml\n")
