"""A publication has a licence, a page, a free name, an end of its range, and a clean wheel."""

import io
import zipfile
from pathlib import Path

import pytest
from refiners.authoring.import_names import private_imports
from refiners.authoring.publication import is_bounded, project_problems
from refiners.authoring.validate import validate
from refiners.authoring.wheel import wheel_problems

from ..conftest import EDGES_TOML

PROJECT = {
    "readme": "README.md",
    "license": "MIT",
    "dependencies": ["refiners-core>=1.0.0.dev0,<2", "numpy"],
}
METADATA = "License-Expression: MIT\nLicense-File: LICENSE\n\nA page.\n"
GOOD = {
    "refiners_edges/adapter.toml": b"",
    "refiners_edges/w.safetensors": b"w",
    "refiners_edges-1.dist-info/METADATA": METADATA.encode(),
}
PLACE = "refiners_edges-1.dist-info/METADATA"


def saved() -> bytes:
    """Returns an archive with a pickle, as torch.save writes it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02N.")
    return content.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("README.md", "LICENSE"):
        (tmp_path / name).write_text("text")
    return tmp_path


def test_a_complete_project_lacks_nothing(folder: Path) -> None:
    assert [*project_problems(folder / "pyproject.toml", PROJECT)] == []


@pytest.mark.parametrize(
    ("changes", "rule", "words"),
    [
        ({"readme": "OTHER.md"}, "package", "no page"),
        ({"readme": None}, "package", "no page"),
        ({"license": None}, "license", 'license = "MIT"'),
        ({"license-files": ["TERMS"]}, "license", "write LICENSE"),
        ({"dependencies": ["Refiners_Core >= 1.0"]}, "core-range", "every later core"),
        ({"dependencies": ["refiners-core"]}, "core-range", "every later core"),
        ({"dependencies": ["refiners-core>=5,<6"]}, "core-range", "excludes the core"),
        (
            {"dependencies": ["refiners-core>=1.0.0.dev0,<2; python_version<'3'"]},
            "core-range",
            "does not apply here",
        ),
        (
            {"dependencies": ["refiners-core @ https://example.org/a.whl"]},
            "core-range",
            "an address",
        ),
    ],
)
def test_what_a_project_lacks_is_named(
    folder: Path, changes: dict[str, object], rule: str, words: str
) -> None:
    ((found_rule, what),) = project_problems(folder / "pyproject.toml", PROJECT | changes)
    assert found_rule == rule
    assert words in what


@pytest.mark.parametrize(
    ("text", "bounded"),
    [(">=1.0", False), (">=1,<2", True), ("==1.*", True), ("~=1.2", True), ("!=1.3", False)],
)
def test_a_range_with_an_end_is_bounded(text: str, bounded: bool) -> None:
    assert is_bounded(text) == bounded


@pytest.mark.parametrize(
    ("old", "new", "rule", "words"),
    [
        ("edges]", "freeu]", "name", "refiners-freeu has published adapter 'freeu'"),
        ('">=1.0,<2"', '">=1.0"', "core-range", "admits every later core"),
        ("Follow edges", r"Follow\u202e edges", "text", r"adapter.edges.summary: 'Follow\\u202e"),
        ('core-api = ">=1.0,<2"', 'core-api = "x"', "core-range", "a version specifier"),
        ("summary =", r'"x-\u202e" = 1' + "\nsummary =", "text", r"adapter.edges: 'x-\\u202e"),
    ],
)
def test_a_problem_of_a_manifest_has_a_rule(
    tmp_path: Path, old: str, new: str, rule: str, words: str
) -> None:
    text = EDGES_TOML.replace("adapter.edges]\n", "adapter.edges]\nlicense = 'MIT'\n")
    path = tmp_path / "adapter.toml"
    path.write_text(text.replace("adapter.edges", "adapter.freeu") if rule == "name" else text)
    if rule != "name":
        path.write_text(text.replace(old, new))
    (finding,) = validate(path, is_strict=True)
    assert finding.rule == rule
    assert words in finding.what


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("from refiners_core import Adapter, errors\nimport refiners_core.layers", ""),
        (
            "from refiners_core.surgery.plan import worn",
            "surgery.plan.worn, which is",
        ),
        ("import refiners_core.tree.chain", "refiners_core.tree.chain, which is not public"),
        (
            "def f():\n    from refiners_lora import x",
            "line 2 imports refiners_lora.x, which",
        ),
        ("from . import other\nimport refiners_edges.adapter", ""),
    ],
)
def test_an_import_that_is_not_public_is_named(tmp_path: Path, code: str, words: str) -> None:
    package = tmp_path / "refiners_edges"
    package.mkdir()
    (package / "adapter.py").write_text(code)
    problems = [what for _, what in private_imports(package)]
    assert len(problems) == bool(words)
    assert not words or words in problems[0]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("", b"", ""),
        ("refiners_edges/x.pkl", b"", "x.pkl is a pickle"),
        ("refiners_edges/x.dat", b"\x80\x04N.", "x.dat is a pickle"),
        ("refiners_edges/y.dat", saved(), "y.dat is a pickle"),
        ("refiners_edges/x.pt", b"PK\x03\x04", "x.pt is a pickle"),
        ("refiners_edges/x.safetensors", b"x", "that no manifest pins"),
        ("refiners_edges/x.png", b"x" * 2001, "x.png has 2,001 bytes, more than 2,000"),
        ("refiners_edges/adapter.toml", None, "adapter.toml is missing"),
        ("../evil.py", b"", "../evil.py would be installed outside"),
        ("a/../../evil.py", b"", "would be installed outside"),
        ("/etc/evil", b"", "/etc/evil would be installed outside"),
        ("C:\\x.py", b"", "x.py would be installed outside"),
        ("a..b/..c.py", b"", ""),
        ("other-1.dist-info/METADATA", b"", "several METADATA"),
        ("refiners_edges-1.dist-info/METADATA", None, "no METADATA"),
        (PLACE, f"Name: other\n{METADATA}".encode(), "its METADATA say other 1"),
        (PLACE, f"Version: 2\n{METADATA}".encode(), "its METADATA say refiners-edges 2"),
        (PLACE, f"Name: Refiners.Edges\nVersion: 1.0\n{METADATA}".encode(), ""),
        (PLACE, METADATA.replace("\n", "\r\n").encode(), ""),
        ("refiners_edges-1.dist-info/METADATA", b"License-File: x\n\ntext", "state its license"),
        ("refiners_edges-1.dist-info/METADATA", b"License: MIT\n\ntext", "write LICENSE"),
        ("refiners_edges-1.dist-info/METADATA", METADATA.partition("\n\n")[0].encode(), "no page"),
    ],
)
def test_a_fault_of_a_wheel_is_named(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    files = {**GOOD, **({name: content} if name else {})}
    path = tmp_path / "refiners_edges-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for member, data in files.items():
            if data is not None:
                wheel.writestr(member, data)
    problems = [
        f"{problem.what}: {problem.fix}"
        for problem in wheel_problems(
            path,
            declared={"refiners_edges/w.safetensors"},
            required={"refiners_edges/adapter.toml"},
            largest=2000,
        )
    ]
    assert len(problems) == bool(words), problems
    assert not words or words in problems[0]


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("edges.whl", "is not the name of a wheel"),
        ("refiners_edges-x-py3-none-any.whl", "is not the name of a wheel"),
        ("other-1-py3-none-any.whl", "has the metadata of another package"),
    ],
)
def test_the_file_name_of_a_wheel_is_that_of_its_metadata(
    tmp_path: Path, file: str, words: str
) -> None:
    with zipfile.ZipFile(tmp_path / file, "w") as wheel:
        for member, data in GOOD.items():
            wheel.writestr(member, data)
    (problem,) = wheel_problems(tmp_path / file, declared={"refiners_edges/w.safetensors"})
    assert words in problem.what


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name_are_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "refiners_edges-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, data in (*GOOD.items(), ("refiners_edges/adapter.toml", b"x")):
            wheel.writestr(member, data)
    (problem,) = wheel_problems(path, declared={"refiners_edges/w.safetensors"})
    assert problem.what == "it has 2 files named refiners_edges/adapter.toml"


@pytest.mark.parametrize("damage", ["data", "encrypted", "compression", "text"])
def test_a_damaged_wheel_is_a_problem(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "refiners_edges-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for member, data in {"a.txt": b"text " * 1000, **GOOD}.items():
            wheel.writestr(member, data)
    raw = bytearray(path.read_bytes())
    entry = raw.index(b"PK\x01\x02")  # of the first file, in the directory at the end
    if damage == "data":
        raw[35:39] = b"\xff\xff\xff\xff"
    elif damage == "encrypted":
        raw[6] |= 1
        raw[entry + 8] |= 1
    elif damage == "compression":
        raw[8] = raw[entry + 10] = 99
    path.write_bytes(b"text" if damage == "text" else raw)
    (problem,) = wheel_problems(path, declared={"refiners_edges/w.safetensors"})
    assert ("a.txt" if damage != "text" else path.name) + " cannot be read" in problem.what
    assert "pip wheel" in problem.fix
