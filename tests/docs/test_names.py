"""Pages, help texts and messages name only commands, options and names that exist."""

import importlib
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import pytest
from refiners.cli import main
from refiners.installed.inventory import GROUPS

from refiners_core.command import GROUP as COMMANDS
from refiners_core.public import MODULES

from .mention import FENCE, HOLE, SPAN, code, command_lines, imported, messages

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "plugins/**/*.md", "registry/**/*.md.jinja")
    for path in ROOT.glob(pattern)
    if not {"_build", "gallery", "reference", "node_modules"} & {*path.relative_to(ROOT).parts[:2]}
    or path.is_relative_to(ROOT / "plugins")
)
SOURCES = sorted(
    path
    for pattern in ("refiners_core", "registry/refiners", "plugins/*/src", "train/src", "examples")
    for folder in ROOT.glob(pattern)
    for path in folder.rglob("*.py")
)
SCRIPTS = [*ROOT.glob("plugins/*/training/*.py"), *ROOT.glob("benchmarks/*.py")]
NOT_NAMES = {
    *(*GROUPS, COMMANDS, "refiners.plugins", "refiners.command"),
    *("refiners.base", "refiners.training"),
}
"""The groups of entry points and the keys of metadata that look like names of Python."""
INVENTED = {"refiners_edge_guide", "refiners_example", "refiners_studio", "refiners_blue_slider"}
"""The packages that pages write."""
FILES = {"lock", "toml", "md", "json"}

DOTTED = re.compile(r"(?<![\w./@-])(refiners(?:_\w+)?(?:\.[A-Za-z_]\w*)+)(?![\w/-])")
OPTION = re.compile(r"--?[a-z][a-z-]*")
MENTION = re.compile(r"""refiners +[a-z-]|["']refiners["']|(?<!from )(?<!import )refiners\w*\.""")
WORD = re.compile(r"[A-Za-z_]\w*")
USED = re.compile(r"\b([A-Za-z_]\w*)(?=[(=:,]| *$| = )", re.MULTILINE)
CALLED = re.compile(r"(?:[\w.]+\.)?([A-Za-z_]\w*)\(.*\)|([A-Z][a-z0-9]+(?:[A-Z][A-Za-z0-9]*)+)")
OTHERS = {"MultiAdapter", "TencentARC"}
"""The names of other libraries and of organisations that pages name."""


# --- what exists -------------------------------------------------------------------------------


@cache
def command(name: str) -> click.Command | None:
    return main.get_command(click.Context(main), name)


def options(leaf: click.Command) -> set[str]:
    """Returns the options of a command, and those that all have."""
    declared = {name for each in leaf.params for name in (*each.opts, *each.secondary_opts)}
    return {*declared, "--help", "-h"}


@cache
def all_options() -> frozenset[str]:
    """Returns the options of all commands, and those of the scripts of this repository."""
    groups: list[click.Command] = [main]
    names = {
        option for path in SCRIPTS for option in re.findall(r'"(--[a-z-]+)"', path.read_text())
    }
    while groups:
        group = groups.pop()
        names |= options(group)
        if group is main:
            groups += [c for n in main.list_commands(click.Context(main)) if (c := command(n))]
        elif isinstance(group, click.Group):
            groups += group.commands.values()
    return frozenset(names)


def fault_of(words: list[str]) -> str:
    """Returns why a command line does not exist; empty if it does, or if it is a pattern."""
    name, *rest = words
    if name.startswith("-"):
        return "" if name in options(main) else f"refiners has no option {name}"
    faults = [fault_in(each, rest) for each in name.split("/")]
    return next(filter(None, faults), "")


def fault_in(name: str, rest: list[str]) -> str:
    leaf = command(name)
    if leaf is None:
        return f"refiners has no command {name}"
    path = f"refiners {name}"
    while isinstance(leaf, click.Group) and rest:
        default: str | None = getattr(leaf, "default", None)
        name, *after = rest
        if default is not None and name not in leaf.commands:
            name, after = default, rest
        if not re.fullmatch(r"[a-z][a-z-]*", name):
            break
        if name not in leaf.commands:
            return f"{path} has no command {name}"
        leaf, path, rest = leaf.commands[name], f"{path} {name}", after
    for word in rest:
        option = word.partition("=")[0]
        if OPTION.fullmatch(option) and option not in options(leaf):
            return f"{path} has no option {option}"
    return ""


@cache
def is_there(name: str, *, is_public: bool) -> bool:
    """Whether a dotted name leads to a module, an object or an attribute.

    Args:
        name: The name.
        is_public: Whether those of the core and the registry must be public.
    """
    parts = name.split(".")
    if name in NOT_NAMES or parts[-1] in FILES or parts[0] in INVENTED or HOLE in name:
        return True
    must_be_listed = is_public and parts[0] in ("refiners", "refiners_core")
    modules = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    for module in modules:
        rest = parts[len(module.split(".")) :]
        if must_be_listed:
            if not rest and any(f"{each}.".startswith(f"{name}.") for each in MODULES):
                return True
            if module not in MODULES or not rest:
                continue
            value = importlib.import_module(module)
            if rest[0] not in value.__all__ and not rest[0].startswith("__"):
                continue
        elif not is_module(module):
            continue
        elif not rest:
            return True
        else:
            value = importlib.import_module(module)
        return has_path(value, rest)
    return False


def has_path(value: Any, path: list[str]) -> bool:
    """Whether attributes lead on from an object; fields of a class count by their annotations."""
    for part in path:
        if not hasattr(value, part):
            return part in getattr(value, "__annotations__", {})
        value = getattr(value, part)
    return True


def is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


# --- the tests ---------------------------------------------------------------------------------


def faults_of_page(page: str) -> list[str]:
    faults: list[str] = []
    for text in code(page):
        faults += filter(None, map(fault_of, command_lines(text)))
        names = {*DOTTED.findall(text), *imported(text)}
        faults += [f"{name} is not public" for name in names if not is_there(name, is_public=True)]
        option = re.split(r"[ =]", text, maxsplit=1)[0]
        if option.startswith("--") and OPTION.fullmatch(option) and option not in all_options():
            faults.append(f"nothing has the option {option}")
    return faults


@cache
def known_words() -> frozenset[str]:
    """Returns what all sources of this repository define, import, call or pass by name."""
    paths = {*SOURCES, *SCRIPTS, *ROOT.glob("tests/**/*.py"), *ROOT.glob("plugins/*/tests/*.py")}
    texts = (path.read_text() for path in paths - {Path(__file__)})
    return frozenset(
        word for text in texts for match in USED.finditer(text) for word in match.groups()
    )


def unknown_names(page: str, *, is_of_others: bool) -> list[str]:
    """Returns the classes and functions in backticks that no source has, nor a block of the page.

    Args:
        page: The text.
        is_of_others: Whether the first cell of each row of a table names another library.
    """
    words = {
        *known_words(),
        *OTHERS,
        *(w for _, block in FENCE.findall(page) for w in WORD.findall(block)),
    }
    text = FENCE.sub("", page)
    if is_of_others:
        text = re.sub(r"^\|[^|]*\|", "|", text, flags=re.MULTILINE)
    spans = (re.sub(r"\s+", " ", span) for _, span in SPAN.findall(text))
    names = (match[1] or match[2] for span in spans if (match := CALLED.fullmatch(span)))
    return [f"no source has {name}" for name in names if name not in words]


def faults_of_module(source: str) -> list[str]:
    faults: list[str] = []
    for text in messages(source) if MENTION.search(source) else ():
        faults += filter(None, map(fault_of, command_lines(text)))
        names = {*DOTTED.findall(text), *imported(text)}
        faults += [
            f"{name} does not exist" for name in names if not is_there(name, is_public=False)
        ]
    return faults


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_names_only_what_exists(path: Path):
    page = path.read_text()
    assert faults_of_page(page) == []
    if path.name != "CHANGELOG.md":  # which names what went away
        assert unknown_names(page, is_of_others=path.parent.name == "from") == []


@pytest.mark.parametrize(
    "page",
    [
        "`PhotoPrompter`",
        "| a | `load_plug(x)` |",
        "`adapter.put_there(model)`",
        "`Chainlets(a)`s",
    ],
)
def test_a_class_or_a_call_that_no_source_has_is_noticed(page: str):
    assert len(unknown_names(page, is_of_others=False)) == 1
    assert unknown_names("| `FreeU_V9(x)` | `Condition(x)` |", is_of_others=True) == []


def test_messages_and_help_name_only_what_exists():
    faults = {str(path.relative_to(ROOT)): faults_of_module(path.read_text()) for path in SOURCES}
    assert {path: listed for path, listed in faults.items() if listed} == {}


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ("Type `refiners lists`.", "refiners has no command lists"),
        ("| `refiners adapters` | shows them |", "refiners has no command adapters"),
        ("```sh\nrefiners list --all\n```", "refiners list has no option --all"),
        ("```text\n$ refiners why a --modle b\n```", "refiners why has no option --modle"),
        ('`refiners generate "a heart" --adapters lora`', "generate has no option --adapters"),
        ("```sh\nrefiners generate a \\\n  --steps 3 --sede 4\n```", "no option --sede"),
        ("`refiners new edge --kinds lora`", "refiners new adapter has no option --kinds"),
        ("`refiners lora mix a b`", "refiners lora has no command mix"),
        ("`refiners lora merge a b --rang 3`", "refiners lora merge has no option --rang"),
        ("`echo a | refiners chats -`", "refiners has no command chats"),
        ("`cd a && refiners shows`", "refiners has no command shows"),
        ("`python -m refiners shows`", "refiners has no command shows"),
        ("`refiners --versions`", "refiners has no option --versions"),
        ("`--quickly` imports nothing.", "nothing has the option --quickly"),
        ("`refiners.load_models`", "refiners.load_models is not public"),
        ("`refiners_core.Condition.scales`", "refiners_core.Condition.scales is not public"),
        ("`refiners_core.surgery.plan.apply`", "is not public"),
        ("```py\nrefiners.load_adapters(1)\n```", "refiners.load_adapters is not public"),
        (
            "```py\nfrom refiners_core import (\n    Chain,\n    Chains,\n)\n```",
            "core.Chains is not",
        ),
        ("`refiners_lora.adapter.Loras`", "refiners_lora.adapter.Loras is not public"),
    ],
)
def test_a_wrong_name_on_a_page_is_noticed(page: str, fault: str):
    assert [fault in each for each in faults_of_page(page)] == [True]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ('hint = "Run refiners doctors."', "refiners has no command doctors"),
        ('hint = f"Try refiners why {name} --modle {model}."', "has no option --modle"),
        ('hint = quoted("refiners", "fetches", name)', "refiners has no command fetches"),
        ('"""Loads.\n\nSee refiners.load_adapters."""', "refiners.load_adapters does not exist"),
        ('"""Lists.\n\n\\b\nExamples:\n  refiners list --jason\n"""', "no option --jason"),
    ],
)
def test_a_wrong_name_in_a_message_is_noticed(source: str, fault: str):
    assert [fault in each for each in faults_of_module(source)] == [True]


def test_what_exists_is_accepted():
    page = """
    `refiners list`, `refiners info NAME --json`, `refiners refiners-lora:lora merge a b --out c`,
    `refiners.lock`, `refiners.adapters()`, `refiners_core.Condition.scale`, `refiners_core.models`

    ```sh
    refiners generate "a --starry heart" --adapter lora-ink:0.5 --seed 3 | cat --all # --none
    ```
    """
    assert faults_of_page(page) == []
    assert faults_of_module('"""Importing refiners loads nothing; see `import refiners`."""') == []
