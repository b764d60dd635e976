"""Mutates five modules in hundreds of small ways and counts how many mutants the tests kill.

    python tests/mutation.py                 # all five modules
    python tests/mutation.py lock receipts   # some
    python tests/mutation.py --count 400     # a larger sample

The mutants are cosmic-ray's. Its runner starts a new Python for each, but importing torch takes
longer than most of these tests. Here one process imports the libraries, then forks for each mutant;
the child serves the mutated source to the import system and runs the tests. Mutants that differ
only in annotations, which are never evaluated, are left out. Survivors are printed with the reasons
in `mutation.toml`. Exits with 1 below a score of 0.85.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
BAR = 0.85
EXAMPLES = 12
NOT_SERVED = 99
CORE = [
    *(f"tests/core/surgery/test_{name}.py" for name in ("plan", "refusals", "hand_edits", "laws")),
    *(f"tests/core/surgery/test_{name}.py" for name in ("failures", "copying")),
    "tests/core/weights/test_pickle_file.py",
    *(f"tests/core/tree/test_{name}.py" for name in ("error_notes", "show")),
    *(f"tests/core/surgery/test_{name}.py" for name in ("garbage", "hotswap")),
]


class Module(NamedTuple):
    """A module to mutate, and its tests, the fastest first."""

    path: str
    name: str
    tests: Sequence[str]


MODULES = {
    "plan": Module("refiners_core/surgery/plan.py", "refiners_core.surgery.plan", CORE),
    "overlay": Module("refiners_core/surgery/overlay.py", "refiners_core.surgery.overlay", CORE),
    "lock": Module(
        "registry/refiners/choose/lock.py",
        "refiners.choose.lock",
        ["tests/registry/choose/test_held_lock.py", "tests/registry/choose/test_lock.py"],
    ),
    "receipts": Module(
        "registry/refiners/hub/receipts.py",
        "refiners.hub.receipts",
        ["tests/registry/hub/test_receipts.py", "tests/registry/hub/test_client.py"],
    ),
    "fetch": Module(
        "registry/refiners/sources/fetch.py",
        "refiners.sources.fetch",
        [
            f"tests/registry/{name}.py"
            for name in ("sources/test_fetch", "hub/test_size_limit", "sources/test_load")
        ],
    ),
}


class Mutant(NamedTuple):
    """A small change of a module."""

    module: str
    line: int
    operator: str
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.operator}\n    - {self.before}\n    + {self.after}"


def places_in(source: str) -> list[tuple[str, int]]:
    """Returns the operators and occurrences that can change a source."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.operators.provider import OperatorProvider

    provider = OperatorProvider()
    nodes = [*ast_nodes(get_ast(source))]
    names = [name for name in sorted(provider) if not name.startswith("Variable")]  # need arguments
    return [
        (name, occurrence)
        for name in names
        for occurrence in range(
            sum(len([*provider[name]().mutation_positions(node)]) for node in nodes)
        )
    ]


def mutants_of(key: str, size: int, seed: int) -> list[Mutant]:
    """Returns random mutants of a module that differ in executed code."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.operators.provider import OperatorProvider

    source = (ROOT / MODULES[key].path).read_text()
    known = {_meaning(source)}
    mutants: list[Mutant] = []
    places = places_in(source)
    random.Random(seed).shuffle(places)
    for name, occurrence in places:
        if len(mutants) == size:
            break
        try:
            mutated = mutate_code(source, OperatorProvider()[name](), occurrence)
            meaning = _meaning(mutated)
        except (AttributeError, SyntaxError):  # cosmic-ray cannot replace `module.Error`, say
            continue
        if meaning not in known:
            known.add(meaning)
            mutants.append(_mutant(key, name, source, mutated))
    return mutants


def _mutant(key: str, operator: str, source: str, mutated: str) -> Mutant:
    pairs = zip(source.splitlines(), mutated.splitlines(), strict=False)
    line, (before, after) = next((n, p) for n, p in enumerate(pairs, 1) if p[0] != p[1])
    return Mutant(key, line, operator, before.strip(), after.strip(), mutated)


def _meaning(source: str) -> str:
    """Returns a dump of a source that ignores annotations."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
    return ast.dump(tree)


class Serving(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports one module from a string instead of its file."""

    def __init__(self, module: Module, source: str) -> None:
        self.module = module
        self.source = source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.module.name:
            return None
        file = str(ROOT / self.module.path)
        return importlib.util.spec_from_file_location(fullname, file, loader=self)

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, str(ROOT / self.module.path), "exec", dont_inherit=True)

    def get_source(self, fullname: str) -> str:
        return self.source


class FewExamples:
    """A pytest plugin that limits property tests to a few examples, without shrinking."""

    def pytest_collection_modifyitems(self, items: Sequence[Any]) -> None:
        from hypothesis import Phase, settings

        for item in items:
            test = getattr(item, "obj", None)
            test = getattr(test, "__func__", test)
            if known := getattr(test, "_hypothesis_internal_use_settings", None):
                quick = settings(
                    known, max_examples=EXAMPLES, phases=[Phase.explicit, Phase.generate]
                )
                test._hypothesis_internal_use_settings = quick


def passes(module: Module, source: str, limit: float, report: Path) -> bool:
    """Runs the tests of a module in a child process, with another source in its place."""
    child = os.fork()
    if child == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        log = os.open(report.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream, number in ((null, 0), (log, 1), (log, 2)):
            os.dup2(stream, number)
        code = 1
        try:
            import pytest

            serving = Serving(module, source)
            sys.meta_path.insert(0, serving)
            quiet = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0")
            arguments = [*quiet, f"--basetemp={report.parent}/tmp", *module.tests]
            code = int(pytest.main(arguments, [FewExamples()]))
            report.write_text(json.dumps(sorted(_libraries())))
            if getattr(sys.modules[module.name], "__loader__", None) is not serving:
                code = NOT_SERVED
        finally:
            os._exit(code)
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            if code == NOT_SERVED:
                raise SystemExit(f"{module.name} was imported from its file, not from the mutant")
            return code == 0
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _libraries() -> Iterator[str]:
    """Yields the imported modules from outside this repository."""
    ours = tuple(f"{ROOT / name}/" for name in ("tests", "refiners_core", "registry", "plugins"))
    for name, module in [*sys.modules.items()]:
        file = getattr(module, "__file__", None) or ""
        if file and not file.startswith(ours) and not name.startswith(("_pytest", "pytest", "__")):
            yield name


def preload(report: Path) -> None:
    """Imports the libraries that a run needed; our modules are imported anew for each mutant."""
    for name in json.loads(report.read_text()):
        try:
            importlib.import_module(name)
        except BaseException as error:  # a module that only its own package may import
            del error


def sample(modules: Sequence[str], size: int, seed: int) -> dict[str, list[Mutant]]:
    """Returns mutants of each module, in proportion to the places where it can be mutated."""
    places = {key: len(places_in((ROOT / MODULES[key].path).read_text())) for key in modules}
    total = sum(places.values())
    return {key: mutants_of(key, -(-size * n // total), seed) for key, n in places.items()}


def reason_of(mutant: Mutant, reasons: Sequence[dict[str, str]]) -> str:
    """Returns the reason in `mutation.toml` why a mutant survives."""
    for entry in reasons:
        is_same_line = (entry["module"], entry["before"]) == (mutant.module, mutant.before)
        if is_same_line and entry.get("after", mutant.after) == mutant.after:
            return entry["reason"]
    return "not examined yet"


def main() -> int:
    parser = argparse.ArgumentParser(description="Counts the mutants that the tests kill.")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=", ".join(MODULES))
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.path.insert(0, str(ROOT))
    reasons = tomllib.loads((ROOT / "tests/mutation.toml").read_text())["survivor"]
    sampled = sample(arguments.modules or [*MODULES], arguments.count, arguments.seed)
    killed = survived = 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = folder
        report = Path(folder, "report.json")
        for key, mutants in sampled.items():
            module = MODULES[key]
            source = (ROOT / module.path).read_text()
            start = time.monotonic()
            if not passes(module, source, 900, report):
                log = report.with_suffix(".log").read_text()[-3000:]
                raise SystemExit(f"{log}\nthe tests of {key} fail on the unchanged module")
            limit = 20 + 3 * (time.monotonic() - start)
            preload(report)
            alive: list[Mutant] = []
            for number, mutant in enumerate(mutants, 1):
                print(f"\r{key} {number}/{len(mutants)}", end="", file=sys.stderr, flush=True)
                if passes(module, mutant.source, limit, report):
                    alive.append(mutant)
                    print(f"\r{mutant}\n    survives: {reason_of(mutant, reasons)}", flush=True)
            print("\r", end="", file=sys.stderr)
            killed, survived = killed + len(mutants) - len(alive), survived + len(alive)
            score = 1 - len(alive) / max(1, len(mutants))
            print(f"{key:8} {len(mutants):4} mutants, {score:.3f} killed", flush=True)
    total = killed + survived
    print(f"{total} mutants, {killed} killed: score {killed / total:.3f}, the bar is {BAR}")
    return 0 if killed >= BAR * total else 1


if __name__ == "__main__":
    sys.exit(main())
