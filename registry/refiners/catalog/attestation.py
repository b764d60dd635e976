"""Finds the publisher of a wheel, and verifies the signatures where a tool is installed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from refiners.catalog.publisher import Publisher, publisher_in
from refiners.errors import IntegrityError
from refiners.host.disk import open_regular
from refiners.host.text import shown

TOOL: Final = "pypi-attestations"
"""The tool of the package index that verifies signatures; `refiners-core[attestations]` has it."""
_SITES: Final = {"github": "https://github.com", "gitlab": "https://gitlab.com"}
_LIMIT: Final = 120
"""The seconds that a verification may take."""


def attested_publisher(wheel: Path, provenance: bytes, *, offline: bool = False) -> Publisher:
    """Returns the publisher of a wheel.

    Without the tool, and for services that it cannot verify, the identity is recorded as claimed.

    Args:
        wheel: The wheel.
        provenance: The provenance object that the index has for it.
        offline: Whether the tool must not refresh its list of trusted keys.

    Raises:
        IntegrityError: The provenance is about another file, or a signature is wrong.
    """
    with open_regular(wheel) as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
    publisher = publisher_in(provenance, wheel.name, sha256)
    tool = _tool()
    site = _SITES.get(publisher.kind.lower())
    if tool is None or site is None:
        return publisher
    with tempfile.TemporaryDirectory(prefix="refiners-provenance-") as folder:
        path = Path(folder) / f"{wheel.name}.provenance"
        path.write_bytes(provenance)
        command = [tool, "verify", "pypi", "--repository", f"{site}/{publisher.repository}"]
        command += ["--provenance-file", str(path), *(["--offline"] if offline else []), str(wheel)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_LIMIT, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise IntegrityError(
                f"{TOOL} could not verify {wheel.name}: {error}.",
                hint=f"Run pip install -U {TOOL}, or uninstall it to record a claimed publisher.",
            ) from error
    if done.returncode:
        lines = shown(f"{done.stdout}\n{done.stderr}").strip().splitlines()
        reason = (lines or [f"{TOOL} ended with {done.returncode}"])[-1][:500]
        raise IntegrityError(
            f"the signatures of {wheel.name} are not of {publisher.identity}: {reason}.",
            hint="Nothing was recorded. Do not install this wheel; ask its author.",
        )
    return replace(publisher, verified=True)


def _tool() -> str | None:
    beside = Path(sys.executable).parent / TOOL
    return str(beside) if beside.is_file() else shutil.which(TOOL)
