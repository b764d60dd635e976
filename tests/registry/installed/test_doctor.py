"""The doctor names each culprit and the command that removes it; everything else works."""

import json

import pytest
import refiners
from click.testing import CliRunner, Result
from refiners.catalog import Listed
from refiners.cli import main
from refiners.doctor import Problem, examine
from refiners.testing import LoopbackHub, safetensors_of

from ..conftest import EDGES, EDGES_TOML, TOY_MODEL, TOY_MODEL_TOML, Site

ADAPTER = "[refiners.adapters]\nbad = refiners_bad:adapter.toml\n"
MANIFEST = EDGES_TOML.replace("edges", "bad").replace("refiners_edges", "refiners_bad")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def toys(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("PYTHONPATH", str(site.folder))  # for the process that imports plugins
    site.add_toy()
    site.add_edges()
    return site


def of(dist: str, problems: tuple[Problem, ...]) -> list[Problem]:
    return [problem for problem in problems if problem.dist == dist]


def test_without_problems_all_is_well(toys: Site) -> None:
    assert examine(is_probing=False) == ()
    result = run("doctor", "--quick")
    assert (result.exit_code, result.stdout) == (0, "No problems found.\n")


BAD = {
    "raises": ("raise ValueError('odd')", "", "import of factory", "ValueError: odd"),
    "exits": ("import sys; sys.exit(3)", "", "import of factory", "SystemExit: 3"),
    "kills": ("import os; os._exit(3)", "", "import of factory", "ended the process with 3"),
    "api": ("Edges = dict", ">=7", "core API", "needs core API >=7"),
    "manifest": ("", "schema = 1", "manifest", "'adapter' is missing"),
    "empty": ("", "nothing", "manifest", "has no adapter.toml"),
    "hooks": ("raise ValueError('odd')", "hooks", "import of hooks", "ValueError: odd"),
    "bye": ("import sys; sys.exit(3)", "hooks", "import of hooks", "SystemExit: 3"),
}


PRINTS = {
    "json": """print('{"task": oops')""",
    "forged": """print('{"task": ["factory", "refiners-toy", "x"], "error": "forged"}')""",
    "loud": "import os, sys\nprint('loading ...', end='')\nos.write(1, b'{' * 100_000)",
    "base": "raise BaseException('odd')",
    "interrupt": "raise KeyboardInterrupt('odd')",
    "untold": "class E(Exception):\n    def __str__(self): raise E\nraise E",
}


@pytest.mark.filterwarnings("ignore:extensions of torch")
def test_output_and_errors_of_plugins_affect_no_other(toys: Site) -> None:
    for name, code in PRINTS.items():
        package = f"refiners_{name}"
        text = EDGES_TOML.replace("adapter.edges", f"adapter.{name}")
        text = text.replace("refiners_edges", package)
        code = f"{code}\n{EDGES}" if code.startswith(("print", "import")) else code
        toys.add(f"refiners-{name}", files={"adapter.py": code, "adapter.toml": text})
    info = toys.folder / "unrelated-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: unrelated\nVersion: 1\n")
    (info / "entry_points.txt").write_bytes(b"[console_scripts]\nfoo = caf\xe9:main\n")
    problems = examine()
    assert {problem.dist for problem in problems} == {
        *(f"refiners-{name}" for name in ("base", "interrupt", "untold")),
        "unrelated",
    }
    assert "BaseException: odd" in of("refiners-base", problems)[0].what
    assert "E: E" in of("refiners-untold", problems)[0].what
    (garbled,) = of("unrelated", problems)
    assert garbled.command == "pip install --force-reinstall unrelated"


@pytest.mark.filterwarnings("ignore:the hooks bad")
def test_bad_plugins_are_named_and_all_others_work(toys: Site) -> None:
    for name, (code, manifest, _, _) in BAD.items():
        package = f"refiners_{name}"
        text = EDGES_TOML.replace("adapter.edges", f"adapter.{name}")
        text = text.replace("refiners_edges", package)
        files: dict[str, str | bytes] = {"adapter.py": code, "adapter.toml": text}
        points = f"[refiners.adapters]\nbad = {package}:adapter.toml\n"
        if manifest == "hooks":
            files, points = {"hooks.py": code}, f"[refiners.plugins]\nbad = {package}.hooks\n"
        elif manifest == "nothing":
            files = {}
        elif manifest == "schema = 1":
            files["adapter.toml"] = manifest
        elif manifest:
            files["adapter.toml"] = text.replace(">=1.0,<2", manifest)
        toys.add(f"refiners-{name}", files=files, entry_points=points)
    problems = examine()
    for name, (_, _, kind, message) in BAD.items():
        culprits = of(f"refiners-{name}", problems)
        assert [culprit.kind for culprit in culprits] == [kind], name
        assert message in culprits[0].what
        assert f"refiners-{name}" in culprits[0].command
    assert of("refiners-edges", problems) == of("refiners-toy", problems) == []
    assert refiners.load_adapter("edges", refiners.load_model("toy")).is_worn
    assert run("list").exit_code == 0


def test_a_package_that_shadows_a_name_is_named(toys: Site) -> None:
    toys.add("refiners-shadow", files={"adapter.toml": EDGES_TOML, "adapter.py": EDGES})
    (problem,) = examine(is_probing=False)
    assert (problem.kind, problem.dist) == ("duplicate", "refiners-shadow")
    assert "refiners-edges:edges, refiners-shadow:edges" in problem.what
    assert problem.command == "pip uninstall refiners-shadow"
    with pytest.raises(refiners.AmbiguousNameError):
        refiners.load_adapter("edges")
    assert refiners.load_adapter("refiners-edges:edges", refiners.load_model("toy")).is_worn


def test_a_fetched_catalog_does_not_decide_what_to_remove(
    toys: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys.add("refiners-shadow", files={"adapter.toml": EDGES_TOML, "adapter.py": EDGES})
    stranger = Listed(name="edges", kind="adapter", distribution="refiners-shadow", summary="x")
    monkeypatch.setattr("refiners.catalog.listed", lambda: (stranger,))
    monkeypatch.setattr("refiners.doctor.listed", lambda: (stranger,))
    (problem,) = examine(is_probing=False)
    assert problem.command == "pip uninstall refiners-shadow"


def test_an_alias_that_is_the_name_of_another_adapter_is_named(toys: Site) -> None:
    alias = MANIFEST.replace('summary = "Follow bad"', 'summary = ""\naliases = ["edges"]')
    toys.add("refiners-bad", files={"adapter.toml": alias})
    (problem,) = examine(is_probing=False)
    assert "the alias 'edges' of refiners-bad:bad is also refiners-edges:edges" in problem.what
    assert refiners.load_adapter("edges", refiners.load_model("toy")).is_worn


def test_stale_metadata_and_missing_files_are_named(toys: Site) -> None:
    toys.add("refiners-edges", files={"adapter.toml": EDGES_TOML}, version="1.3")
    weights = f"[model.old.weights.w]\nsource = 'pkg:refiners_old/w.bin'\nsha256 = '{'0' * 64}'\n"
    manifest = TOY_MODEL_TOML.replace("model.toy", "model.old") + weights
    toys.add("refiners-old", files={"model.py": TOY_MODEL, "model.toml": manifest})
    stale, missing = examine(is_probing=False)
    assert (stale.kind, stale.dist) == ("stale metadata", "refiners-edges")
    assert "pip uninstall -y refiners-edges" in stale.command
    assert (missing.kind, missing.dist) == ("missing file", "refiners-old")
    assert missing.command == "pip install --force-reinstall refiners-old"


def test_policies_are_examined(toys: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    path = toys.folder / "policy.toml"
    monkeypatch.setenv("REFINERS_POLICY", str(path))
    assert [problem.kind for problem in examine(is_probing=False)] == ["policy"]
    path.write_text('schema = 1\n[packages]\ndeny = ["refiners-toy"]')
    assert [problem.dist for problem in examine(is_probing=False)] == ["refiners-toy"]


def test_the_command_prints_a_table_or_json(toys: Site) -> None:
    toys.add("refiners-bad", files={"adapter.toml": "schema = 1"}, entry_points=ADAPTER)
    result = run("doctor", "--quick")
    assert result.exit_code == 1
    assert "pip uninstall refiners-bad" in result.stdout
    (problem,) = json.loads(run("doctor", "--quick", "--json").stdout)["problems"]
    assert problem["dist"] == "refiners-bad"


def test_fetch_gets_the_files_that_a_model_needs(site: Site, hub: LoopbackHub) -> None:
    data = safetensors_of({"weight": [1.0]})
    hub.publish("org/edges", {"a.safetensors": data, "b.safetensors": data[::-1]})
    site.add_toy()
    other = '[[adapter.edges.variant]]\nbase = "other"\nweights = "b"\n'
    files = "".join(
        f'[adapter.edges.weights.{x}]\nsource = "hf:org/edges"\nfile = "{x}.safetensors"\n'
        for x in "ab"
    )
    site.add_edges(
        EDGES_TOML.replace('base = "toy"', 'base = "toy"\nweights = "a"') + other + files
    )
    result = run("fetch", "edges", "toy", "--model", "toy", "--json")
    assert result.exit_code == 0, result.output
    assert [file["name"] for file in json.loads(result.stdout)["files"]] == ["a"]
    hub.requests.clear()
    assert refiners.load_adapter("edges", refiners.load_model("toy"), offline=True).is_worn
    assert hub.requests == []
    assert run("fetch", "edges").exit_code == 4  # the other file is not in the safetensors format
    assert run("fetch", "edgse").exit_code == 2
