"""Families of models come from packages: folders, files and repositories find their opener."""

from pathlib import Path

import pytest
import refiners
from click.testing import CliRunner
from refiners.authoring.validate import validate
from refiners.cli import main
from refiners.errors import ManifestError
from refiners.load import outline
from refiners.manifest.folder_layout import FolderTable, is_path
from refiners.manifest.reader import load_manifest, parse
from refiners.manifest.schema import ModelManifest
from refiners.testing import LoopbackHub, safetensors_of

from refiners_core.errors import ModelError

from ..conftest import EDGES_TOML, Site

OPENER = """
from refiners_core import Model
from refiners_core.errors import ModelError


class Drum(Model):
    def __init__(self, path):
        super().__init__(base="drum", facts={}, slots={})
        self.path = path


def check(folder):
    if "loud" in (folder / "config.json").read_text():
        raise ModelError("this drum is too loud.", hint="Give another one.")


def opened(path, *, device=None, dtype=None):
    check(path if path.is_dir() else path.parent)
    return Drum(path)
"""
MANIFEST = """
schema = 1
[family.drum]
factory = "refiners_drum.family:opened"
checker = "refiners_drum.family:check"
summary = "a drum"
core-api = ">=1.0,<2"

[family.drum.folder]
files = ["config.json", "*.safetensors"]
without = ["adapter_config.json"]
fields."config.json" = { model_type = ["drum", "tom"] }
texts = ["config.json", "notes/*.txt"]
weights = [".", "skin"]

[[family.drum.file.layout]]
name = "single file"
keys = ["drum.*.skin"]
"""
WEIGHTS = safetensors_of({"skin": [1.0]})
FOLDER = {
    "config.json": b'{"model_type": "drum"}',
    "notes/a.txt": b"one",
    "notes/b/c.txt": b"deep",
    "model.safetensors": WEIGHTS,
    "model.fp16.safetensors": WEIGHTS + b" ",
    "skin/model.safetensors": WEIGHTS[::-1],
    "README.md": b"hello",
}


@pytest.fixture
def drum(site: Site) -> Path:
    return site.add("refiners-drum", files={"family.py": OPENER, "model.toml": MANIFEST})


@pytest.fixture(autouse=True)
def _readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refiners.sources.fetch.check_header", lambda path, dist: None)


def written(folder: Path, files: dict[str, bytes] = FOLDER) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def files_in(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_a_folder_finds_the_family_of_a_package(drum: Path, tmp_path: Path) -> None:
    folder = written(tmp_path / "tom", {**FOLDER, "config.json": b'{"model_type": "tom"}'})
    model = refiners.load_model(folder)
    assert (type(model).__name__, model.path) == ("Drum", folder)
    assert outline(str(folder)).base == "drum"
    assert refiners.models() == ()  # a family is not a model with a name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config.json": b'{"model_type": "flute"}'}, "flute"),
        ({"config.json": b"[1]"}, "config.json"),
        ({"adapter_config.json": b"{}"}, "drum"),
        ({"model.safetensors": None, "model.fp16.safetensors": None}, "drum"),
    ],
)
def test_a_folder_that_lacks_a_condition_is_left_to_others(
    drum: Path, tmp_path: Path, change: dict[str, bytes | None], words: str
) -> None:
    files = {name: data for name, data in {**FOLDER, **change}.items() if data is not None}
    with pytest.raises(ModelError, match=words):
        refiners.load_model(written(tmp_path / "other", files))


def test_a_single_file_finds_it_by_its_header(drum: Path, tmp_path: Path) -> None:
    folder = written(tmp_path / "files", {"config.json": b"{}"})
    path = folder / "one.safetensors"
    path.write_bytes(safetensors_of({"drum.0.skin": [1.0]}))
    assert refiners.load_model(path).path == path


@pytest.mark.filterwarnings("ignore:hf.org/drum is commit")
def test_a_repository_is_fetched_as_the_manifest_describes_it(
    drum: Path, hub: LoopbackHub, tmp_path: Path
) -> None:
    repository = hub.publish("org/drum", {f"big/{name}": data for name, data in FOLDER.items()})
    model = refiners.load_model("hf:org/drum@main/big")
    wanted = {"config.json", "notes/a.txt", "model.safetensors", "skin/model.safetensors"}
    assert files_in(model.path) == wanted
    half = refiners.load_model("hf:org/drum@main/big", dtype="float16")
    assert files_in(half.path) == wanted - {"model.safetensors"} | {"model.fp16.safetensors"}
    lock = tmp_path / "refiners.lock"
    what = f"hf:org/drum@{repository.commit}/big"
    assert refiners.load_model(what).path == model.path
    assert CliRunner().invoke(main, ["lock", what, "--out", str(lock)]).exit_code == 0
    assert refiners.load_model(what, offline=True, lock=lock).path == model.path
    assert model.origin is not None
    assert model.origin(model).id == what


@pytest.mark.filterwarnings("ignore:hf.org/drum is commit")
def test_configurations_are_checked_before_weights_are_fetched(
    drum: Path, hub: LoopbackHub
) -> None:
    loud = b'{"model_type": "drum", "loud": 1}'
    hub.publish("org/drum", {**FOLDER, "config.json": loud})
    with pytest.raises(ModelError, match="too loud"):
        refiners.load_model("hf:org/drum")
    assert not [r.path for r in hub.requests if r.method == "GET" and "model.saf" in r.path]


def test_a_broken_opener_is_named_and_harms_nobody_else(site: Site, tmp_path: Path) -> None:
    site.add("refiners-drum", files={"family.py": "1 / 0", "model.toml": MANIFEST})
    site.add_toy()
    with pytest.raises(refiners.PluginError, match=r"importing refiners_drum.family:opened") as e:
        refiners.load_model(written(tmp_path / "tom"))
    assert e.value.dist == "refiners-drum"
    assert refiners.load_model("toy").base == "toy"


def test_an_opener_that_returns_no_model_is_named(site: Site, tmp_path: Path) -> None:
    code = "def opened(path, **options): return path\ncheck = opened"
    site.add("refiners-drum", files={"family.py": code, "model.toml": MANIFEST})
    with pytest.raises(refiners.PluginError, match="returned PosixPath, not Model"):
        refiners.load_model(written(tmp_path / "tom"))


def test_the_family_with_more_conditions_is_meant_and_a_draw_is_refused(
    drum: Path, site: Site, tmp_path: Path
) -> None:
    folder = written(tmp_path / "tom")
    other = MANIFEST.replace("refiners_drum", "refiners_snare").replace("[family.drum", "[family.s")
    path = site.add("refiners-snare", files={"family.py": OPENER, "model.toml": other})
    with pytest.raises(refiners.AmbiguousNameError, match="refiners-drum:drum, refiners-snare:s"):
        refiners.load_model(folder)
    exact = other.replace('"*.safetensors"', '"*.safetensors", "notes/*"')
    (path / "model.toml").write_text(exact)
    assert type(refiners.load_model(folder)).__module__ == "refiners_snare.family"


def test_a_family_for_another_core_is_refused(site: Site, tmp_path: Path) -> None:
    newer = MANIFEST.replace(">=1.0,<2", ">=7")
    site.add("refiners-drum", files={"family.py": OPENER, "model.toml": newer})
    with pytest.raises(refiners.IncompatibleError, match="needs core API >=7"):
        refiners.load_model(written(tmp_path / "tom"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('files = ["config.json", "*.safetensors"]', "files = []", "at least one path"),
        ('fields."config.json"', 'fields."config.txt"', "is not a JSON file"),
        ('"notes/*.txt"', '"../*.txt"', "a path in the folder"),
        ('core-api = ">=1.0,<2"', 'core-api = "one"', "should be a version specifier"),
        ('keys = ["drum.*.skin"]', "", "would fit every file"),
    ],
)
def test_faults_of_a_manifest_are_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "model.toml"
    assert old in MANIFEST
    path.write_text(MANIFEST.replace(old, new))
    with pytest.raises(ManifestError, match=words):
        load_manifest(path, ModelManifest)


def test_a_manifest_has_a_model_or_a_family_that_something_shows() -> None:
    _, faults = parse("schema = 1", ModelManifest)
    assert "neither a model nor a family" in str(faults[0])
    bare = MANIFEST.partition("[family.drum.folder]")[0]
    _, faults = parse(bare, ModelManifest)
    assert "nothing shows its models" in str(faults[0])


def test_stars_stay_within_one_part_of_a_path() -> None:
    assert is_path("unet/config.json", "unet/*.json")
    assert not is_path("unet/deep/config.json", "unet/*.json")
    table = FolderTable(files=("a/*",), without=("b",))
    assert table.fits(["a/x"])
    assert not table.fits(["a/x", "b"])
    assert not table.fits(["a"])


def test_validate_reads_families_and_adapters_name_their_slots(drum: Path, site: Site) -> None:
    project = drum.parent
    (project / "pyproject.toml").write_text(
        """
        [project]
        name = "refiners-drum"
        version = "1"
        dependencies = ["refiners-core>=1.0.0.dev0,<2"]
        [project.entry-points."refiners.models"]
        drum = "refiners_drum:model.toml"
        [tool.setuptools.package-data]
        refiners_drum = ["model.toml"]
        """
    )
    assert [*validate(project)] == []
    manifest = MANIFEST.replace(":check", ":chek").replace(
        'summary = "a drum"', 'summary = "a drum"\nslots = ["drum.skin"]'
    )
    (drum / "model.toml").write_text(manifest)
    (finding,) = validate(project)
    assert "family.py does not define chek" in str(finding)
    edges = EDGES_TOML.replace('base = "toy"', "").replace("toy.linear", "drum.skim")
    site.add_edges(edges)
    (finding,) = validate(site.folder / "refiners_edges" / "adapter.toml")
    assert "the slot 'drum.skim' does not exist; did you mean 'drum.skin'?" in str(finding)
