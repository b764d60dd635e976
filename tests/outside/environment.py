"""A fresh environment with Refiners from wheels, beside the installed third-party packages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = Path(__file__).with_name("packages")
ASIDE = {"plugins", "testkit", "benchmarks", "tests", "training", "docs", "build", "dist"}
"""The folders of a source tree that no wheel is made of; the template has some of these names."""
OURS = ("refiners", "__editable__")
"""How the names of our installed packages begin; the environment has them from wheels alone."""
SCRIPT = "#!{python}\nimport sys\nfrom {module} import main\nsys.exit(main())\n"
SCRIPTS = {"pip": "pip._internal.cli.main", "hf": "huggingface_hub.cli.hf"}
CALM = {"OMP_NUM_THREADS": "2", "NO_COLOR": "1", "COLUMNS": "100", "PYTHONNOUSERSITE": "1"}


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    command: str
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Returns all output in one line, so that a search does not depend on where lines wrap."""
        return " ".join(f"{self.out} {self.err}".split())


@dataclass(frozen=True)
class Environment:
    """A virtual environment in a folder, and the folder of wheels that its pip installs from."""

    folder: Path
    wheels: Path
    variables: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def create(cls, folder: Path, wheels: Path) -> Environment:
        """Makes an environment that sees the third-party packages of ours, and none of ours."""
        venv.create(folder, symlinks=True)
        new = cls(folder, wheels)
        others = folder / "others"
        others.mkdir()
        for path in Path(sysconfig.get_path("purelib")).iterdir():
            if not path.name.startswith(OURS):
                (others / path.name).symlink_to(path)
        (new.site / "others.pth").write_text(f"{others}\n")
        for name, module in SCRIPTS.items():
            script = folder / "bin" / name
            script.write_text(SCRIPT.format(python=new.python, module=module))
            script.chmod(0o755)
        return new

    @property
    def python(self) -> Path:
        """The interpreter."""
        return self.folder / "bin" / "python"

    @property
    def site(self) -> Path:
        """The folder with the installed packages."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / "lib" / version / "site-packages"

    @property
    def environ(self) -> dict[str, str]:
        """The variables of a process in it, which reaches no package index and no real Hub."""
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
        pip = {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_NO_BUILD_ISOLATION": "0",  # a variable "no-..." that is false switches it on
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        home = {"HOME": str(self.folder / "home"), "HF_HOME": str(self.folder / "hub")}
        path = {"PATH": f"{self.folder / 'bin'}:/usr/bin:/bin"}
        return {**kept, **CALM, **pip, **home, **path, "HF_HUB_OFFLINE": "1"} | self.variables

    def run(
        self,
        *command: object,
        folder: Path | None = None,
        code: int | None = 0,
        variables: Mapping[str, str] | None = None,
        text: str = "",
    ) -> Done:
        """Runs a program of the environment.

        Args:
            command: The program and its arguments.
            folder: The working folder.
            code: The exit code that it must end with; None for any.
            variables: More variables of the process.
            text: Its standard input.
        """
        words = [str(word) for word in command]
        environ = self.environ | dict(variables or {})
        program = shutil.which(words[0], path=environ["PATH"])
        assert program, f"the environment has no program {words[0]}"
        (self.folder / "home").mkdir(exist_ok=True)
        done = subprocess.run(
            [program, *words[1:]],
            cwd=folder or self.folder,
            env=environ,
            input=text,
            capture_output=True,
            text=True,
            timeout=900,
        )
        shown = f"{' '.join(words)} ends with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        assert code is None or done.returncode == code, shown[-6000:]
        return Done(" ".join(words), done.returncode, done.stdout, done.stderr)

    def report(self, *command: object, **options: Any) -> Any:
        """Returns what a command prints with `--json`."""
        return json.loads(self.run(*command, "--json", **options).out)

    def script(self, source: str, *arguments: object, **options: Any) -> Any:
        """Runs Python code in the environment; returns the JSON of its last line."""
        done = self.run("python", "-c", source, *arguments, **options)
        return json.loads(done.out.splitlines()[-1])

    def install(self, *names: object) -> None:
        """Installs packages from the folder of wheels."""
        self.run("pip", "install", "--quiet", "--no-compile", *names)

    def uninstall(self, *names: str) -> None:
        """Uninstalls packages."""
        self.run("pip", "uninstall", "--quiet", "--yes", *names)

    def names(self) -> set[str]:
        """Returns the names of our packages, and of those around them, that pip lists."""
        listed = self.run("pip", "list", "--format", "json", "--path", self.site).out
        return {entry["name"] for entry in json.loads(listed)}


def build(sources: Iterable[Path], wheels: Path, environment: Environment) -> None:
    """Builds the wheels of source folders, as their authors do."""
    folder = wheels / "sources"
    copies = [Path(shutil.copytree(path, folder / path.name, ignore=_aside)) for path in sources]
    environment.run("pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, *copies)
    shutil.rmtree(folder)


def _aside(folder: str, names: list[str]) -> set[str]:
    """Returns what is not copied: at the top, what no wheel is made of; everywhere, caches."""
    caches = {name for name in names if name.endswith((".egg-info", "__pycache__"))}
    is_top = "pyproject.toml" in names
    return caches | {name for name in names if is_top and (name in ASIDE or name[0] == ".")}


def first_party(*plugins: str) -> Sequence[Path]:
    """Returns the source folders of the core, the testkit and some plugins."""
    return [ROOT, ROOT / "testkit", *(ROOT / "plugins" / name for name in plugins)]
