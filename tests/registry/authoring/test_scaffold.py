"""`refiners new` writes whole repositories, whatever the texts of their authors."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from markdown_it import MarkdownIt
from packaging.requirements import Requirement
from refiners.authoring import scaffold
from refiners.authoring.scaffold import ANSWERS, KINDS, LICENSES, MODEL, TEMPLATE, create
from refiners.authoring.validate import validate
from refiners.cli import main
from refiners.errors import OptionError

from refiners_core.public import MODULES, public_names

HARD = {
    "title": 'An "edge" \\ {{ 7 * 7 }} `*_é😀"',
    "summary": "\"a\\n\" & 'b' # {% raw %} [l](u) <i> é",
    "author": 'Ada "L" \\ <a@b.c> {{ 1 / 0 }}',
    "license": "Apache-2.0",
    "repository": "https://example.org/ada/edge-guide",
}
"""Answers with the signs that TOML, Python, Markdown, YAML or the template could misread."""
LONGEST = "a-" + 38 * "b"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A repository of each kind, with hard answers."""
    home = tmp_path_factory.mktemp("new")
    for kind in (*KINDS, MODEL):
        create(LONGEST, home / kind, kind=kind, answers=HARD)
    return {kind: home / kind for kind in (*KINDS, MODEL)}


def sources(folder: Path) -> Iterator[tuple[Path, ast.Module]]:
    for path in folder.rglob("*.py"):
        yield path, ast.parse(path.read_text("utf-8"))


def manifest_of(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("src/*/*.toml")
    tables = tomllib.loads(path.read_text("utf-8"))
    return (tables.get("adapter") or tables["model"])[LONGEST]


@pytest.mark.parametrize("kind", [*KINDS, MODEL])
def test_every_text_arrives_as_it_was_written(repositories: dict[str, Path], kind: str):
    folder = repositories[kind]
    assert validate(folder, is_strict=True) == ()
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["description"] == manifest_of(folder)["summary"] == HARD["summary"]
    assert project["authors"] == [{"name": HARD["author"]}]
    assert project["license"] == manifest_of(folder)["license"] == HARD["license"]
    assert project["urls"]["Repository"] == HARD["repository"]
    trees = dict(sources(folder))
    (package,) = [tree for path, tree in trees.items() if path.name == "__init__.py"]
    assert ast.get_docstring(package) == f"{HARD['title']} for Refiners."
    assert "Apache License" in (folder / "LICENSE").read_text("utf-8")
    answers = yaml.safe_load((folder / ANSWERS).read_text("utf-8"))
    assert {**HARD, "name": LONGEST, "kind": kind}.items() <= answers.items()
    readme = (folder / "README.md").read_text("utf-8")
    assert readme.startswith('# An "edge" \\\\ {{ 7 \\* 7 }} \\`\\*\\_é😀"\n')
    rendered = [
        "".join(token.content for token in block.children or ())
        for block in MarkdownIt().parse(readme)
        if block.type == "inline"
    ]
    assert rendered[0] == HARD["title"]
    assert rendered[1].endswith(HARD["summary"])
    assert rendered[-1].endswith(f"by {HARD['author']}.")
    (picture,) = re.findall(r"\]\((src/\S+\.png)\)", readme)
    assert (folder / picture).stat().st_size < 200_000
    assert (folder / picture).with_suffix(".py").is_file()


def test_the_code_is_clean_and_imports_public_names_only(repositories: dict[str, Path]):
    home = next(iter(repositories.values())).parent
    ruff = Path(sys.executable).with_name("ruff")
    for arguments in (("check", "--no-cache"), ("format", "--check", "--no-cache")):
        done = subprocess.run([ruff, *arguments, home], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    for folder in repositories.values():
        for path, tree in sources(folder):
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and node.module in MODULES:
                    names = {alias.name for alias in node.names}
                    assert names <= {*public_names(node.module)}, path
                elif isinstance(node, ast.ImportFrom):
                    assert (node.module or "").partition(".")[0] != "refiners_core", path


def test_a_lora_takes_sixty_lines_and_no_inject_or_eject(repositories: dict[str, Path]):
    (path,) = repositories["lora"].glob("src/*/adapter.py")
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):  # a docstring is not code
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:] or [ast.Pass()]
    code = ast.unparse(tree)
    assert "ject" not in code
    lines = path.read_text("utf-8").splitlines()
    doc = {
        number
        for node in ast.walk(ast.parse("\n".join(lines)))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    statements = [
        line
        for number, line in enumerate(lines, 1)
        if number not in doc and line.strip() and not line.strip().startswith("#")
    ]
    assert len(statements) <= 60


@pytest.mark.parametrize("kind", ["lora", MODEL])
def test_the_workflows_store_no_secret_and_pin_their_actions(
    repositories: dict[str, Path], kind: str
):
    folder = repositories[kind] / ".github"
    flows = {path.name: path.read_text("utf-8") for path in (folder / "workflows").iterdir()}
    assert {*flows} == {"tests.yml", "publish.yml", "weights.yml"}
    for text in flows.values():
        flow = yaml.safe_load(text)
        assert "secrets." not in text
        assert flow["permissions"] == {"contents": "read"}
        for job in flow["jobs"].values():
            for step in job["steps"]:
                action = step.get("uses", "")
                assert not action or re.fullmatch(r"[\w./-]+@(v\d+(\.\d+)*|release/v\d+)", action)
                assert "${{ github" not in step.get("run", "")  # a tag is not shell code
    jobs = yaml.safe_load(flows["publish.yml"])["jobs"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["environment"]["name"] == "pypi"
    assert "permissions" not in jobs["build"]
    upload = yaml.safe_load(flows["weights.yml"])["jobs"]["upload"]
    assert upload["permissions"]["id-token"] == "write"
    assert upload["env"]["HF_OIDC_RESOURCE"] == "${{ vars.HUB_REPOSITORY }}"
    matrix = yaml.safe_load(flows["tests.yml"])["jobs"]["tests"]["strategy"]["matrix"]["include"]
    assert [row["resolution"] for row in matrix] == ["lowest-direct", "highest"]
    updates = yaml.safe_load((folder / "dependabot.yml").read_text("utf-8"))["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"github-actions", "pip"}


def test_the_class_never_takes_a_name_that_its_module_uses(repositories: dict[str, Path]):
    used: set[str] = set()
    for kind in KINDS:
        for _, tree in sources(repositories[kind] / "src"):
            for node in ast.walk(tree):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    used |= {alias.asname or alias.name for alias in node.names}
                elif isinstance(node, ast.ClassDef):
                    used.add(node.name)
    used -= {"A" + 38 * "b", "A" + "B" + 37 * "b"}
    template = (TEMPLATE / "copier.yml").read_text("utf-8")
    taken = set(re.findall(r"'([A-Z]\w*)'", template.partition("class_name:")[2]))
    assert {name for name in used if re.fullmatch(r"([A-Z][a-z0-9]*)+", name)} - {
        "COND",
        "UNCOND",
    } <= taken


@pytest.mark.parametrize("name", ["sum", "true"])
def test_a_class_with_a_taken_name_is_called_an_adapter(tmp_path: Path, name: str):
    create(name, tmp_path / "x")
    (path,) = (tmp_path / "x").glob("src/*/adapter.py")
    assert f"class {name.capitalize()}Adapter(Adapter):" in path.read_text("utf-8")
    assert validate(tmp_path / "x", is_strict=True) == ()


@pytest.mark.parametrize(
    "name", ["Edge", "edge_guide", "1edge", "class", "../edge", "", "é", 41 * "a"]
)
def test_a_bad_name_writes_nothing(tmp_path: Path, name: str):
    result = run("new", "adapter", name, "--folder", tmp_path / "x")
    assert (result.exit_code, "such as edge-guide" in result.stderr) == (2, True)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("question", "answer", "words"),
    [
        ("title", "a\nb", "is not a title"),
        ("title", "\x1b[31mred", "is not a title"),
        ("title", "\u202egnp", "is not a title"),
        ("title", 41 * "x", "is not a title"),
        ("summary", " ", "is not a summary"),
        ("author", "Ada\nname: x", "is not an author"),
        ("repository", "javascript:alert(1)", "is not the address"),
        ("repository", 'https://a.b/c"d', "is not the address"),
        ("repository", "https://a.b/c\n", "is not the address"),
    ],
)
def test_an_answer_that_no_file_can_hold_is_refused(
    tmp_path: Path, question: str, answer: str, words: str
):
    with pytest.raises(OptionError, match=words) as error:
        create("edge", tmp_path / "x", answers={question: answer})
    assert error.value.hint.startswith("Write one")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["core", "testkit"])
def test_a_name_of_refiners_itself_is_refused(tmp_path: Path, name: str):
    result = run("new", "adapter", name, "--folder", tmp_path / "x")
    assert (result.exit_code, f"such as my-{name}" in result.stderr) == (2, True)


def test_the_name_of_a_published_package_is_refused(tmp_path: Path):
    with pytest.raises(OptionError, match="refiners-controlnet is published already"):
        create("controlnet", tmp_path / "x")


def test_an_existing_folder_is_left_alone(tmp_path: Path):
    assert run("new", "adapter", "edge", "--folder", tmp_path).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_without_copier_the_error_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scaffold, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match="copier, which is not installed") as error:
        create("edge", tmp_path / "x")
    assert error.value.hint == 'Run pip install "refiners-core[new]".'


@pytest.mark.parametrize("source", ["nowhere", "."])
def test_a_template_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError) as error:
        create("edge", tmp_path / "x", template=source)
    assert "--template" in error.value.hint
    assert not (tmp_path / "x").exists()


def test_both_forms_and_both_kinds_of_packages_are_commands(tmp_path: Path):
    short = run("new", "edge", "--folder", tmp_path / "short", "--json")
    long = run("new", "adapter", "edge", "--folder", tmp_path / "long")
    assert len(json.loads(short.stdout)["files"]) == long.stdout.count("wrote ") == 18
    assert "pip install --editable . --group dev && python -m pytest" in long.stdout
    assert (tmp_path / "short" / ANSWERS).read_text() == (tmp_path / "long" / ANSWERS).read_text()
    assert run("new", "model", "small", "--folder", tmp_path / "model").exit_code == 0
    assert [*(tmp_path / "model").glob("src/*/model.toml")]
    assert run("new", "adapter").exit_code == run("new").exit_code == 2
    assert "Commands:" in run("new", "--help").output


def test_the_answers_name_a_version_and_no_path_of_this_machine(
    repositories: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    text = (repositories["lora"] / ANSWERS).read_text("utf-8")
    assert str(TEMPLATE.parent) not in text
    assert yaml.safe_load(text)["_commit"] == f"v{version('refiners-core')}"
    path = tmp_path / ANSWERS
    path.write_text("# head\n_commit: x\n_src_path: >-\n  /some/long\n  path\nname: edge\n")
    known = {"Project-URL": ["Repository, https://example.org/refiners"]}
    monkeypatch.setattr(scaffold, "metadata", lambda name: type("M", (), {"get_all": known.get}))
    scaffold._name_source(path)
    answers = yaml.safe_load(path.read_text())
    assert answers["_src_path"] == "https://example.org/refiners"
    assert answers["name"] == "edge"
    assert {*answers} == {"_src_path", "_commit", "name"}


def test_the_choices_of_the_shell_are_those_of_the_template():
    questions = yaml.safe_load((TEMPLATE / "copier.yml").read_text("utf-8"))
    assert [*questions["kind"]["choices"].values()] == [*KINDS, MODEL]
    assert questions["license"]["choices"] == [*LICENSES]
    assert questions["kind"]["default"] == KINDS[0]


def test_the_declared_range_of_cores_includes_this_one(repositories: dict[str, Path]):
    project = tomllib.loads((repositories["lora"] / "pyproject.toml").read_text())["project"]
    (needed,) = map(Requirement, project["dependencies"])
    assert needed.specifier.contains(version("refiners-core"), prereleases=True)
