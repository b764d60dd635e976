"""Tables of the guide have what the code has: variables, commands, slots, samplers."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from click import Context
from refiners.cli import main

from refiners_core.condition import Condition
from refiners_core.models.decoder import DECODER_SLOTS
from refiners_core.models.diffusion import SLOTS
from refiners_core.models.samplers import SAMPLERS
from refiners_core.sampler_name import NAMES, SPACING_NAMES

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guide"
SOURCES = {
    ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
    for root in (ROOT, ROOT / "registry", *ROOT.glob("plugins/*/src"))
    for path in root.glob("refiners*/**/*.py")
    if not {"testing", "template"} & set(path.relative_to(root).parts)
}
NAMED = re.compile(r"\b(?:HF|REFINERS|XDG|SSL)_[A-Z]+(?:_[A-Z]+)*\b")


def first_cells(page: str, title: str) -> set[str]:
    """Returns the names in code in the first column of a table below a heading."""
    section = f"\n{(GUIDE / page).read_text()}".partition(f"\n{title}\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    return {name for cell in rows for name in re.findall(r"`([^`]+)`", cell)}


def constant(module: str, name: str) -> tuple[str, ...]:
    """The text, or the texts, that a module binds to a name, or imports under it."""
    for node in ast.parse(SOURCES[module].read_text()).body:
        if isinstance(node, ast.ImportFrom) and any(name == each.name for each in node.names):
            return constant(node.module or "", name)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(each, ast.Name) and each.id == name for each in targets):
                value = ast.literal_eval(node.value)
                return (value,) if isinstance(value, str) else tuple(value)
    raise AssertionError(f"nothing says which variable {name} of {module} is")


def variables(module: str) -> Iterator[str]:
    """The environment variables that a module reads or sets, as it names them."""
    tree = ast.parse(SOURCES[module].read_text())
    loops = {
        node.target.id: node.iter.id
        for node in ast.walk(tree)
        if isinstance(node, ast.For)
        and isinstance(node.target, ast.Name)
        and isinstance(node.iter, ast.Name)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="environ")), args=[key, *_]):
                pass
            case ast.Subscript(value=ast.Attribute(attr="environ"), slice=key):
                pass
            case ast.Call(func=ast.Attribute(attr="getenv"), args=[key, *_]):
                pass
            case ast.keyword(arg="envvar", value=key):
                pass
            case _:
                continue
        if isinstance(key, ast.Constant):
            yield str(key.value)
        else:
            assert isinstance(key, ast.Name), f"{module}: {ast.unparse(node)}"
            yield from constant(module, loops.get(key.id, key.id))


def test_every_variable_that_the_code_reads_is_listed_and_no_other():
    read = {name for module in SOURCES for name in variables(module)}
    assert {"REFINERS_LOCK", "REFINERS_OFFLINE", "SSL_CERT_DIR"} <= read
    assert first_cells("environment.md", "## Read by Refiners") == read


def test_every_variable_that_a_message_names_is_on_the_page():
    named = {
        name
        for path in SOURCES.values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for name in NAMED.findall(node.value)
    }
    assert "HF_TOKEN" in named
    assert named <= set(NAMED.findall((GUIDE / "environment.md").read_text()))


def test_every_command_is_listed_and_shown():
    commands = set(main.list_commands(Context(main)))
    assert first_cells("shell.md", "# The shell") == commands
    text = (GUIDE / "shell.md").read_text()
    assert all(f"\nrefiners {name} " in text or f"\nrefiners {name}\n" in text for name in commands)


def test_every_slot_is_listed():
    assert first_cells("adapter.md", "## The tree") == set(SLOTS)
    assert first_cells("language.md", "## Adapters") == set(DECODER_SLOTS)


def test_every_sampler_is_listed():
    assert first_cells("samplers.md", "# Samplers") == set(SAMPLERS)


def test_the_names_of_samplers_and_spacings_are_those_of_the_code():
    text = (GUIDE / "samplers.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    samplers = [
        [entry.name, ", ".join(entry.aliases), "" if entry.is_borrowed else entry.scheduler]
        for entry in NAMES
    ]
    assert [row for row in rows if row and row[0] in SAMPLERS] == samplers
    spacings = [[f"`{name}`", ", ".join(aliases)] for name, aliases in SPACING_NAMES.items()]
    assert [row[:2] for row in rows if row and row[0].strip("`") in SPACING_NAMES] == spacings


def test_every_field_of_a_condition_is_listed():
    fields = set(Condition.__dataclass_fields__)
    assert first_cells("conditions.md", "## Strength and span") == fields


def test_every_page_is_in_the_table_of_contents():
    for folder in (GUIDE, GUIDE / "from"):
        index = (folder / "index.md").read_text()
        tree = index.partition("```{toctree}\n")[2].partition("```")[0].split()
        pages = {page.stem for page in folder.glob("*.md")} - {"index"}
        pages |= {f"{page.parent.name}/index" for page in folder.glob("*/index.md")}
        assert pages == set(tree) - {":hidden:"}
        assert pages == set(re.findall(r"\]\(([\w/-]+)\.md\)", index))
