"""CONTRIBUTING.md leads to places that are there: rooms, files, and the names in them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
CODE = re.compile(r"`([^`]+)`")


def rows(title: str) -> list[list[str]]:
    """The cells of each row of the first table below a heading, without its head."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def names_in(tree: ast.AST, prefix: str = "") -> Iterator[str]:
    """Every class, function, method and constant of a module, dotted."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name
            yield from names_in(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (prefix + each.id for each in targets if isinstance(each, ast.Name))


ROUTES = [
    (aim, CODE.findall(file)[0], name)
    for aim, file, names in rows("Where to change what")
    for name in CODE.findall(names)
]


@pytest.mark.parametrize(("file", "name"), [(file, name) for _, file, name in ROUTES])
def test_each_route_leads_to_a_name_that_is_there(file: str, name: str):
    assert name in set(names_in(ast.parse((ROOT / file).read_text())))


def test_there_is_a_route_for_each_question_that_newcomers_ask():
    aims = " ".join(aim for aim, _, _ in ROUTES)
    for topic in ("negative prompt", "sampler", "wrap", "refiners lock", "not installed"):
        assert topic in aims


@pytest.mark.parametrize("room", [CODE.findall(cells[0])[0] for cells in rows("Rooms")])
def test_each_room_is_there(room: str):
    assert any(path.is_dir() for path in ROOT.glob(room.rstrip("/")))


def test_no_room_is_missing():
    listed = {CODE.findall(cells[0])[0].rstrip("/") for cells in rows("Rooms")}
    for parent in ("refiners_core", "registry/refiners"):
        assert {f"{parent}/{path.parent.name}" for path in (ROOT / parent).glob("*/*.py")} <= listed


@pytest.mark.parametrize(("home", "number"), [("refiners_core", 7), ("registry/refiners", 13)])
def test_a_room_imports_only_from_rooms_above_it_in_the_table(home: str, number: int):
    above: list[str] = []
    package = home.rpartition("/")[2]
    for cells in rows("Rooms"):
        parent, _, room = CODE.findall(cells[0])[0].rstrip("/").rpartition("/")
        if parent != home:
            continue
        for path in (ROOT / home / room).rglob("*.py"):
            imported = set(re.findall(rf"^ *from {package}\.(\w+)", path.read_text(), re.M))
            others = imported & {other.name for other in (ROOT / home).iterdir() if other.is_dir()}
            assert others <= {room, *above}, path
        above.append(room)
    assert len(above) == number
