"""Measures the registry: cold commands, imports, 1,000 plugins, 10,000 published adapters.

Run `python benchmarks/registry.py`. It prints each figure beside its bar and exits with 1 if a bar
is missed. The Hub is a local stand-in; nothing is downloaded.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

REFERENCE = "import importlib.metadata, click, rich"
MANIFEST = """schema = 1
[adapter.{name}]
factory = "{package}.adapter:Made"
summary = "Do what number {number} does"
core-api = ">=1.0,<2"
[[adapter.{name}.variant]]
base = "toy"
facts = {{ width = 2 }}
targets = [{{ slot = "toy.linear", stage = "branch" }}]
{files}
"""
ADAPTER = """from refiners_core import Adapter, Sum
from torch import nn


class Made(Adapter):
    def edits(self, model):
        def beside(inner, seat):
            return Sum(inner, self.layer(seat, lambda: nn.Linear(2, 2)))

        return model.slot("toy.linear").wrap(beside, stage="branch")
"""
FIVE = 5
MANY = 1000
PUBLISHED = 10_000
VERSIONS = 5
COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}


class Figure(NamedTuple):
    """A measurement and its upper bound."""

    title: str
    value: float
    bar: float
    unit: str

    def __str__(self) -> str:
        verdict = "ok" if self.value <= self.bar else "MISSED"
        return f"{self.title:<84} {self.value:>8.2f} {self.unit:<3} bar {self.bar:>7.2f}  {verdict}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the registry against its bars.")
    parser.add_argument("--runs", type=int, default=9, help="runs of each command")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        COMPILED["PYTHONPYCACHEPREFIX"] = f"{folder}/compiled"
        figures = [*measured(Path(folder), runs)]
    print(f"python {sys.version.split()[0]}, {os.cpu_count()} CPUs, best of {runs} runs")
    print("cold commands in CPU seconds, the rest in wall-clock time")
    for figure in figures:
        print(figure)
    if any(figure.value > figure.bar for figure in figures):
        sys.exit(1)


def measured(folder: Path, runs: int) -> Iterator[Figure]:
    from refiners import adapters, models

    few, many, catalog = folder / "few", folder / "many", folder / "catalog"
    install(few, max(1, FIVE - len({plugin.dist for plugin in (*adapters(), *models())})))
    install(many, MANY)
    publish(catalog)
    environment = {"REFINERS_CATALOG": str(catalog), "PYTHONPATH": str(many)}
    command = "from refiners.cli import main; main()"
    reference, listing = cold(
        runs, ((REFERENCE,), {}), ((command, "list"), {"PYTHONPATH": str(few)})
    )
    yield Figure("refiners list, cold, over importing its libraries", listing / reference, 1.5, "x")
    bare, imported = cold(runs, (("pass",), {}), (("import refiners",), {}))
    yield Figure("import refiners, over bare Python", 1e3 * (imported - bare), 60, "ms")
    output = python("import refiners, sys; print('torch' in sys.modules)", {}).stdout.strip()
    yield Figure("torch is loaded by import refiners", float(output == "True"), 0, "")
    name = f"made-{MANY // 2}"
    for title, arguments in {
        "list": ("list",),
        "search": ("search", f"published-{PUBLISHED // 2}"),
        "resolve an installed name (info)": ("info", name),
        "resolve a published name (info)": ("info", f"published-{PUBLISHED // 2}"),
    }.items():
        (seconds,) = cold(max(3, runs // 3), ((command, *arguments), environment))
        size = f"{MANY} installed, {PUBLISHED} x {VERSIONS} published"
        yield Figure(f"refiners {title}, cold, {size}", seconds, 1, "s")
    yield Figure("load_adapter of a verified adapter, registry alone", registry_time(few), 10, "ms")


def install(site: Path, count: int) -> None:
    """Installs distributions into a folder, each with one adapter."""
    for number in range(count):
        name, package = f"made-{number}", f"refiners_made_{number}"
        info = site / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: refiners-{name}\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text(
            f"[refiners.adapters]\nmade = {package}:adapter.toml\n"
        )
        (site / package).mkdir()
        (site / package / "__init__.py").touch()
        (site / package / "adapter.py").write_text(ADAPTER)
        manifest = MANIFEST.format(name=name, package=package, number=number, files="")
        (site / package / "adapter.toml").write_text(manifest)


def publish(catalog: Path) -> None:
    """Writes a catalog with many adapters in several versions."""
    from refiners.catalog import Release
    from refiners.catalog.build import add

    spec = {
        "factory": "m.adapter:Made",
        "core-api": ">=1.0,<2",
        "variant": [{"base": "sd15", "facts": {"cross_attention_dim": 768}}],
    }
    add(
        catalog,
        [
            Release(
                name=f"published-{number}",
                kind="adapter",
                distribution=f"refiners-published-{number // 10}",
                version=f"1.{version}",
                spec=spec | {"summary": f"Do what number {number} does, version {version}"},
            )
            for number in range(PUBLISHED)
            for version in range(VERSIONS)
        ],
    )


def python(*arguments: str | dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Runs code in a new Python, which caches bytecode as in a normal installation."""
    *texts, extra = arguments
    return subprocess.run(
        [sys.executable, "-c", *(str(text) for text in texts)],
        env={**os.environ, **COMPILED, **(extra if isinstance(extra, dict) else {})},
        capture_output=True,
        text=True,
        check=True,
    )


def cold(runs: int, *commands: tuple[tuple[str, ...], dict[str, str]]) -> list[float]:
    """Returns the CPU seconds of each command from start to end.

    Commands take turns, and the fastest run counts. CPU seconds are independent of other load on
    the machine; on an idle one they equal wall-clock time.
    """
    seconds: list[list[float]] = [[] for _ in commands]
    for run in range(runs + 1):
        for samples, (arguments, environment) in zip(seconds, commands, strict=True):
            start = _cpu_of_children()
            python(*arguments, environment)
            if run:  # the first run fills the disk cache
                samples.append(_cpu_of_children() - start)
    return [min(samples) for samples in seconds]


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def registry_time(site: Path) -> float:
    """Returns the milliseconds that `load_adapter` adds to building and injecting."""
    from refiners.testing import LoopbackHub, safetensors_of

    data = safetensors_of({"weight": [float(number) for number in range(100_000)]})
    with LoopbackHub() as hub, hub.in_use(site.parent / "hf"):
        repo = hub.publish("org/made", {"m.safetensors": data})
        pins = {
            "source": "hf:org/made",
            "file": "m.safetensors",
            "revision": repo.commit,
            "sha256": repo.sha256("m.safetensors"),
        }
        table = "\n".join(f"{key} = {json.dumps(value)}" for key, value in pins.items())
        files = f'weights = "w"\n[adapter.made-0.weights.w]\n{table}'
        manifest = MANIFEST.format(name="made-0", package="refiners_made_0", number=0, files=files)
        (site / "refiners_made_0" / "adapter.toml").write_text(manifest)
        with on_path(site):
            return 1e3 * (_loading() - _building())


def _loading() -> float:
    import refiners

    model = toy()

    def load() -> None:
        refiners.load_adapter("made-0", model).eject()

    return best(load)


def _building() -> float:
    from refiners_made_0.adapter import Made  # pyright: ignore[reportMissingImports]

    model = toy()

    def build() -> None:
        Made(name="made-0").inject(model).eject()

    return best(build)


def toy() -> object:
    """Returns the smallest model for the adapters."""
    from torch import nn

    from refiners_core import Chain, Model, select

    return Model(
        base="toy",
        facts={"width": 2},
        slots={"toy.linear": lambda model: select(model).of(nn.Linear)},
        body=Chain(first=nn.Linear(2, 2)),
    )


def best(action: Callable[[], None], repeats: int = 50) -> float:
    """Returns the seconds of the fastest run of an action, after a warm-up."""
    action()
    samples: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        samples.append(time.perf_counter() - start)
    return min(samples)


@contextmanager
def on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


if __name__ == "__main__":
    main()
