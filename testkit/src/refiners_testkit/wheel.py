"""Builds the wheel of a package from its tree, once a session."""

import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Final

from refiners_testkit.check import fail, not_run
from refiners_testkit.subject import Subject

_LEFT_OUT: Final = shutil.ignore_patterns("build", "dist", "*.egg-info", "__pycache__", ".*")
_LIMIT: Final = 300
"""The seconds that a build may take."""
_BUILD: Final = """
import importlib, sys
backend, out, *places = sys.argv[1:]
sys.path[:0] = places
try:
    built = importlib.import_module(backend.partition(":")[0])
except ImportError as error:
    sys.exit(f"missing: {error}")
for name in filter(None, backend.partition(":")[2].split(".")):
    built = getattr(built, name)
built.build_wheel(out)
"""


@cache
def wheel_of(root: Path) -> Path:
    """Builds a wheel from a copy of a tree, with the backend that it names.

    Args:
        root: The folder of the `pyproject.toml`.
    """
    from refiners.manifest.toml import load_toml

    system: dict[str, Any] = load_toml(root / "pyproject.toml")[0].get("build-system", {})
    backend = str(system.get("build-backend", "setuptools.build_meta:__legacy__"))
    folder = Path(tempfile.mkdtemp(prefix="refiners-wheel-"))
    shutil.copytree(root, folder / "tree", ignore=_LEFT_OUT)
    (folder / "dist").mkdir()
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            _BUILD,
            backend,
            str(folder / "dist"),
            *system.get("backend-path", ()),
        ],
        cwd=folder / "tree",
        capture_output=True,
        text=True,
        timeout=_LIMIT,
        check=False,
    )
    last = (process.stderr.strip() or process.stdout.strip()).splitlines()[-1:]
    if last and last[0].startswith("missing: "):
        wanted = " ".join(map(str, system.get("requires", ("setuptools",))))
        not_run(f"the wheel cannot be built here, {last[0][9:]}: pip install {wanted}")
    if process.returncode:
        fail(f"the wheel cannot be built: {''.join(last)}", f"Run pip wheel --no-deps {root}.")
    return next((folder / "dist").glob("*.whl"))


def declared_files(subject: Subject) -> set[str]:
    """Returns the paths of the weights that the manifests of a package pin in its own wheel."""
    from refiners_testkit.subject import specs

    files = (file for spec in specs(subject).values() for file in spec.weights.values())
    return {file.address for file in files if file.scheme == "pkg"}
