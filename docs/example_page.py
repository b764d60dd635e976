"""Gathers the scripts of the gallery, and the links between them, adapters and slots.

Packages ship the examples of their adapters; `examples/` holds combinations, and families of
adapters on public names. Sphinx-gallery runs all of them from one folder of copies, whose texts
have links.
"""

import ast
import re
import shutil
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import refiners

ROOT = Path(__file__).parents[1]
FAMILIES = ROOT / "examples"
COMBINATIONS = FAMILIES / "combinations"
PAGES = {"guide/adapters": "Adapters", "guide/adapter": "Slots", "guide/language": "Slots"}
"""The pages whose tables link to examples, and the part of the list that they link to."""
HEAD = """\
Gallery
=======

Each script ran while these pages were built, on one thread of a CPU. Below it are the time that it
took, and the memory that it needed at its peak beyond what the process had before. :doc:`By adapter
and slot <by-name>` lists what each one uses.

.. toctree::
   :hidden:

   by-name
"""
SECTIONS = {
    "combinations": ("Combinations", "Several adapters on one model. Their order never matters."),
    "families": ("Families", (FAMILIES / "GALLERY_HEADER.rst").read_text().partition("\n\n")[2]),
}


class Shown(NamedTuple):
    """One script of the gallery."""

    path: Path
    section: str
    """The folder of its page: a package without its prefix, `combinations` or `families`."""
    adapters: tuple[str, ...]
    """The adapters that it loads by name, sorted."""
    slots: tuple[str, ...]
    """The slots that it edits, or that its adapters do, sorted."""

    @property
    def page(self) -> str:
        """The name of its page: no two scripts of the gallery may share the last part."""
        prefix = "family_" if self.section == "families" else ""
        return f"{self.section}/{prefix}{self.path.stem}"


@cache
def shown() -> tuple[Shown, ...]:
    """Returns all scripts of the gallery, those of packages first."""
    targets = {
        adapter.name: {
            target.slot for variant in adapter.spec.variant for target in variant.targets
        }
        for adapter in refiners.adapters()
    }
    places = [
        *((e.path, e.dist.removeprefix("refiners-"), e.loads) for e in refiners.examples()),
        *((path, "combinations", loads(path)) for path in sorted(COMBINATIONS.glob("*.py"))),
        *((path, "families", ()) for path in sorted(FAMILIES.glob("*.py"))),
    ]
    scripts: list[Shown] = []
    for path, section, names in places:
        adapters = tuple(name for name in names if name in targets)
        slots = {slot for name in adapters for slot in targets[name]} | edited(path)
        scripts.append(Shown(path, section, adapters, tuple(sorted(slots))))
    return tuple(scripts)


def loads(path: Path) -> tuple[str, ...]:
    """Returns the plugins that a script of the repository loads by name."""
    return refiners.Example(path, "refiners", "").loads


def edited(path: Path) -> set[str]:
    """Returns the slots that a script asks a model for."""
    return {
        node.args[0].value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "slot"
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


def write_scripts(folder: Path, page: Path) -> None:
    """Replaces the folder of copies that sphinx-gallery runs, and the list by adapter and slot.

    Args:
        folder: The folder for the copies.
        page: The list, in the folder of the pages of the gallery.
    """
    shutil.rmtree(folder, ignore_errors=True)
    scripts = shown()
    sections = {script.section: "" for script in scripts}
    folder.mkdir(parents=True)
    (folder / "GALLERY_HEADER.rst").write_text(HEAD)
    for section in sections:
        title, text = SECTIONS.get(section) or (f"refiners-{section}", of_package(section))
        (folder / section).mkdir()
        (folder / section / "GALLERY_HEADER.rst").write_text(
            f"{title}\n{'-' * len(title)}\n\n{text}\n"
        )
    for script in scripts:
        (folder / f"{script.page}.py").write_text(linked(script))
    page.parent.mkdir(exist_ok=True)
    page.write_text(by_name(scripts))


def of_package(section: str) -> str:
    """Returns the text above the scripts of a package."""
    command = f"refiners examples refiners-{section}"
    return f"These scripts come with the package; ``{command}`` lists them."


def linked(script: Shown) -> str:
    """Returns a script with its title as a heading, and links to what it uses."""
    source = script.path.read_text()
    docstring = ast.get_docstring(ast.parse(source)) or ""
    _, _, code = source.partition('"""')[2].partition('"""')
    title, _, text = docstring.partition("\n")
    if script.section != "families":
        title = title.removesuffix(".")
        text = f"{'=' * len(title)}\n{as_rst(text)}"
        code = re.sub(r"^#.*$", lambda line: as_rst(line[0]), code, flags=re.MULTILINE)
    uses = [
        f":{kind}: {', '.join(f':ref:`{name} <{label(kind, name)}>`' for name in names)}"
        for kind, names in (("Adapters", script.adapters), ("Slots", script.slots))
        if names
    ]
    if script.section not in SECTIONS:
        run = f"refiners examples refiners-{script.section} --run {script.path.stem}"
        uses.append(f":Run it: ``{run}``")
    fields = "\n".join(uses)
    return f'r"""\n{title}\n{text}\n\n{fields}\n"""{code}'


def as_rst(text: str) -> str:
    """Returns a text with code in two backticks, as reStructuredText has it."""
    return re.sub(r"(?<!`)`([^`\n]+)`(?!`)", r"``\1``", text)


def label(kind: str, name: str) -> str:
    """Returns the label of an adapter or a slot in the list."""
    return f"example-{kind.lower()}-{name.replace('.', '-')}"


def by_name(scripts: Iterable[Shown]) -> str:
    """Returns the page that lists the scripts of each adapter and of each slot."""
    parts = [
        "# By adapter and slot",
        "The scripts of the [gallery](index.rst) that load an adapter, and those that edit a slot.",
    ]
    for kind, home in (("Adapters", "adapters.md"), ("Slots", "adapter.md")):
        parts.append(f"## {kind}\n\nThe guide [describes them](../guide/{home}).")
        for name, pages in sorted(used(kind, scripts).items()):
            rows = "\n".join(f"- [](/gallery/{page}.rst)" for page in pages)
            parts.append(f"({label(kind, name)})=\n### {name}\n\n{rows}")
    return "\n\n".join(parts) + "\n"


def used(kind: str, scripts: Iterable[Shown]) -> Mapping[str, list[str]]:
    """Returns the pages that use each adapter or slot."""
    pages: dict[str, list[str]] = {}
    for script in scripts:
        for name in script.adapters if kind == "Adapters" else script.slots:
            pages.setdefault(name, []).append(script.page)
    return pages


def with_links(page: str, text: str) -> str:
    """Returns a page of the guide whose tables link names to their examples.

    Args:
        page: The name of the page, such as `guide/adapters`.
        text: Its source; pages without such tables stay as they are.
    """
    if page not in PAGES:
        return text
    kind = PAGES[page]
    names = used(kind, shown())

    def link(match: re.Match[str]) -> str:
        name = match[1]
        return f"[`{name}`](#{label(kind, name)})" if name in names else match[0]

    def row(match: re.Match[str]) -> str:
        cells = match[0].split("|")
        column = 2 if kind == "Adapters" else 1
        cells[column] = re.sub(r"`([\w.-]+)`", link, cells[column])
        return "|".join(cells)

    return re.sub(r"^\|.+\|.+\|$", row, text, flags=re.MULTILINE)
