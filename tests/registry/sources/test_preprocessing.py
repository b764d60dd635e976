"""Preprocessors: found by entry point, loaded by name, and applied as a manifest declares."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import refiners
from click.testing import CliRunner, Result
from PIL import Image
from refiners.cli import main
from refiners.errors import (
    AmbiguousNameError,
    LockError,
    NotInstalledError,
    OfflineError,
    OptionError,
    PluginError,
    PolicyError,
    UnknownNameError,
)
from refiners.testing import LoopbackHub, safetensors_of

from ..conftest import EDGES_TOML, Site

CODE = """
def trace(picture, /, *, strength=1.0, size=None):
    return ("{mark}", picture, strength, size)


class Network:
    def __init__(self, *, weights=None, depth=1):
        self.source, self.depth = weights(), depth

    def __call__(self, picture, *, size=None):
        return self.source.files["main"].read_bytes()


def broken(*, weights=None):
    raise ValueError("no")
"""
TABLE = """
[preprocessor.{name}]
factory = "{package}.code:{function}"
summary = "Traces of a picture"
core-api = ">=1.0,<2"
aliases = {aliases}
"""


def add(site: Site, dist: str, *tables: str, files: dict[str, str] | None = None) -> None:
    """Installs a package of preprocessors whose functions return its name."""
    package = dist.replace("-", "_")
    manifest = "schema = 1\n" + "".join(tables).replace("{package}", package)
    content = {"code.py": CODE.replace("{mark}", dist), "preprocessor.toml": manifest}
    points = f"[refiners.preprocessors]\nmain = {package}:preprocessor.toml\n"
    site.add(dist, files={**content, **(files or {})}, entry_points=points)


def table(name: str, function: str = "trace", aliases: tuple[str, ...] = ()) -> str:
    words = TABLE.replace("{name}", name).replace("{function}", function)
    return words.replace("{aliases}", json.dumps(aliases))


def weights(name: str, **keys: str) -> str:
    lines = "".join(f'{key} = "{value}"\n' for key, value in keys.items())
    return f"[preprocessor.{name}.weights.main]\n{lines}"


def add_adapter(site: Site, preprocessor: str, adapter: str = "edges") -> refiners.adapters:
    declared = f'picture = {{ summary = "traces on black", preprocessor = "{preprocessor}" }}'
    site.add_toy()
    site.add_edges(f"{EDGES_TOML}[adapter.edges.input]\n{declared}\n")
    return refiners.load_adapter(adapter)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# --- by name --------------------------------------------------------------------------------------


def test_any_package_can_provide_a_preprocessor(site: Site):
    add(site, "refiners-mine", table("trace"))
    assert [plugin.id for plugin in refiners.preprocessors()] == ["refiners-mine:trace"]
    assert "refiners_mine" not in sys.modules
    trace: Any = refiners.load_preprocessor("trace")
    assert trace("photo", size=(3, 4)) == ("refiners-mine", "photo", 1.0, (3, 4))
    strong: Any = refiners.load_preprocessor("refiners-mine:trace", strength=2.0)
    assert strong("photo") == ("refiners-mine", "photo", 2.0, None)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"strenth": 1}, "Did you mean strength?"), ({"size": 1}, "Its options: strength")],
)
def test_an_option_that_it_does_not_take_is_refused(site: Site, options: Any, words: str):
    add(site, "refiners-mine", table("trace"))
    with pytest.raises(OptionError) as error:
        refiners.load_preprocessor("trace", **options)
    assert words in error.value.hint


def test_the_name_of_another_package_says_how_to_install_it(site: Site):
    with pytest.raises(NotInstalledError) as error:
        refiners.load_preprocessor("canny")
    assert error.value.hint == "Run pip install refiners-preprocessors."
    with pytest.raises(UnknownNameError, match="no preprocessor has the name 'cany'") as unknown:
        refiners.load_preprocessor("cany")
    assert "Did you mean 'canny'" in unknown.value.hint
    with pytest.raises(OptionError, match="by name, not by a list"):
        refiners.load_preprocessor(["canny"])  # pyright: ignore[reportArgumentType]


def test_a_name_takes_precedence_over_an_alias(site: Site):
    add(site, "refiners-filters", table("soft", aliases=("hed",)))
    assert refiners.load_preprocessor("hed")("x")[0] == "refiners-filters"
    add(site, "refiners-networks", table("hed"))
    assert refiners.load_preprocessor("hed")("x")[0] == "refiners-networks"


def test_weights_come_from_the_hub_as_the_manifest_pins_them(site: Site, hub: LoopbackHub):
    content = safetensors_of({"weight": [1.0]})
    repo = hub.publish("org/depth", {"model.safetensors": content})
    pins = {"source": "hf:org/depth", "file": "model.safetensors", "revision": repo.commit}
    add(site, "refiners-deep", table("depth", "Network"), weights("depth", **pins))
    with pytest.raises(OfflineError):
        refiners.load_preprocessor("depth", offline=True)
    network: Any = refiners.load_preprocessor("depth", depth=3)
    assert (network("photo"), network.depth) == (content, 3)
    with pytest.raises(OptionError, match="it takes no deep"):
        refiners.load_preprocessor("depth", deep=3)


def test_a_factory_that_fails_names_its_package(site: Site):
    pins = {"source": "pkg:refiners_deep/code.py", "sha256": "0" * 64, "format": "text"}
    add(site, "refiners-deep", table("depth", "broken"), weights("depth", **pins))
    with pytest.raises(PluginError, match="building depth failed: ValueError: no") as error:
        refiners.load_preprocessor("depth")
    assert error.value.dist == "refiners-deep"


# --- as a manifest declares -----------------------------------------------------------------------


def test_an_adapter_finds_the_declared_preprocessor(site: Site):
    adapter = add_adapter(site, "trace")
    add(site, "refiners-mine", table("trace"), table("other"))
    for role in ("", "picture"):
        chosen = adapter.preprocessors(role)
        assert (chosen.name, chosen.has_weights) == ("refiners-mine:trace", False)
    assert adapter.preprocessors("mask") is None
    assert adapter.preprocessors("", "other").name == "refiners-mine:other"


def test_a_preprocessor_with_weights_is_loaded_once_and_only_when_it_runs(
    site: Site, hub: LoopbackHub
):
    repo = hub.publish("org/depth", {"model.safetensors": safetensors_of({"weight": [1.0]})})
    pins = {"source": "hf:org/depth", "file": "model.safetensors", "revision": repo.commit}
    add(site, "refiners-deep", table("depth", "Network"), weights("depth", **pins))
    chosen = add_adapter(site, "depth").preprocessors("")
    assert chosen.has_weights
    assert "refiners_deep" not in sys.modules
    assert chosen.load() is chosen.load()


def test_what_nobody_provides_is_named_with_what_the_adapter_takes(site: Site):
    adapter = add_adapter(site, "segmentation")
    with pytest.raises(UnknownNameError, match="no preprocessor has the name 'segm") as error:
        adapter.preprocessors("")
    assert error.value.hint == "Pass traces on black instead of a photo, without preprocessing."
    with pytest.raises(NotInstalledError) as missing:
        adapter.preprocessors("", "soft-edge")
    assert missing.value.hint == "Run pip install refiners-preprocessors."


def test_two_providers_are_named_and_either_can_be_chosen(site: Site, tmp_path: Path):
    adapter = add_adapter(site, "trace")
    for dist in ("refiners-a", "refiners-b"):
        add(site, dist, table("trace"))
    with pytest.raises(AmbiguousNameError) as error:
        adapter.preprocessors("")
    assert "refiners-a:trace and refiners-b:trace" in error.value.message
    typed = error.value.hint.partition('preprocess="')[2].partition('"')[0]
    assert adapter.preprocessors("", typed).load()("x")[0] == "refiners-a"
    picture = tmp_path / "photo.png"
    Image.new("RGB", (4, 4)).save(picture)
    command = ("generate", "x", "--model", "toy", "--adapter")
    result = run(*command, f"edges={picture}", "--preprocess")
    words = " ".join(result.stderr.split())
    assert "preprocess=refiners-a:trace" in words
    typed = words.partition("PICTURE,")[2].partition(". ")[0]
    assert "refiners-a:trace" not in run(*command, f"edges={picture},{typed}").stderr


def test_a_lock_and_a_policy_hold_for_preprocessors(
    site: Site, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    adapter = add_adapter(site, "trace")
    add(site, "refiners-mine", table("trace"))
    lock = tmp_path / "refiners.lock"
    assert run("lock", "toy", "edges", "--out", lock).exit_code == 0
    locked = refiners.load_adapter("edges", lock=lock)
    with pytest.raises(LockError, match="refiners-mine:trace is not in") as error:
        locked.preprocessors("")
    command = error.value.hint.removeprefix("Run refiners ").removesuffix(".").split()
    assert run(*command).exit_code == 0
    assert locked.preprocessors("").name == "refiners-mine:trace"
    assert run("lock", "--out", tmp_path / "all.lock").exit_code == 0
    assert (
        'id = "refiners-mine:trace"\nkind = "preprocessor"' in (tmp_path / "all.lock").read_text()
    )
    rules = tmp_path / "policy.toml"
    rules.write_text('schema = 1\n[packages]\ndeny = ["refiners-mine"]\n')
    monkeypatch.setenv("REFINERS_POLICY", str(rules))
    with pytest.raises(PolicyError, match="refiners-mine is not allowed"):
        adapter.preprocessors("")


# --- read without running -------------------------------------------------------------------------


def test_the_shell_reads_preprocessors_without_importing_them(site: Site):
    add(site, "refiners-mine", table("trace", aliases=("tracing",)))
    assert "Traces of a picture" in run("list").stdout
    (row,) = json.loads(run("list", "--json").stdout)["preprocessors"]
    assert (row["id"], row["summary"]) == ("refiners-mine:trace", "Traces of a picture")
    facts = json.loads(run("info", "tracing", "--json").stdout)
    assert (facts["name"], facts["factory"]) == ("trace", "refiners_mine.code:trace")
    (match,) = json.loads(run("search", "trace", "--json").stdout)["found"]
    assert (match["kind"], match["installed"]) == ("preprocessor", True)
    assert run("verify").exit_code == 0
    assert "refiners_mine" not in sys.modules


def test_doctor_reports_two_packages_with_one_preprocessor(site: Site):
    for dist in ("refiners-a", "refiners-b"):
        add(site, dist, table("trace"))
    result = run("doctor", "--quick", "--json")
    (problem,) = [p for p in json.loads(result.stdout)["problems"] if p["kind"] == "duplicate"]
    assert "refiners-a:trace, refiners-b:trace" in problem["what"]


def test_a_manifest_is_validated_and_has_a_schema(site: Site, tmp_path: Path):
    manifest = tmp_path / "preprocessor.toml"
    manifest.write_text("schema = 1\n" + table("trace").replace("{package}", "mine"))
    assert run("validate", manifest).exit_code == 0
    manifest.write_text(manifest.read_text().replace("summary", "sumary"))
    result = run("validate", manifest)
    assert (result.exit_code, "Did you mean 'summary'" in " ".join(result.stdout.split())) == (
        1,
        True,
    )
    schema = json.loads(run("validate", "--schema", "preprocessor").stdout)
    assert "PreprocessorSpec" in schema["$defs"]
