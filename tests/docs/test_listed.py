"""The guide's table of adapters has every adapter of this repository, with the bases it fits."""

import re
from pathlib import Path

import refiners

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| *(?P<package>[^|]*)\|(?P<adapters>[^|]*)\|(?P<bases>[^|]*)\|$", re.MULTILINE)


def listed() -> set[tuple[str, str, frozenset[str]]]:
    _, _, section = (ROOT / "docs/guide/adapters.md").read_text().partition("\n## Adapters\n")
    table = section.partition("\n## ")[0]
    rows: set[tuple[str, str, frozenset[str]]] = set()
    package = ""
    for row in ROW.finditer(table):
        package = "".join(re.findall(r"`([\w-]+)`", row["package"])) or package
        bases = frozenset(re.findall(r"`([\w-]+)`", row["bases"])) or frozenset({"any"})
        rows |= {(package, name, bases) for name in re.findall(r"`([\w-]+)`", row["adapters"])}
    return rows


def test_the_table_of_adapters_is_complete_and_right():
    installed = {(a.dist, a.name, frozenset(a.spec.bases)) for a in refiners.adapters()}
    assert listed() == installed
