"""Control characters in foreign text are printed as escapes, by every command."""

import io
import json
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from refiners.cli import main
from refiners.cli.output import say
from refiners.cli.report import print_table
from refiners.cli.safe_stream import SafeStream, safe_streams
from refiners.host.text import is_all_plain, is_plain, reason_of, shown, shown_cell

from ..conftest import EDGES, EDGES_TOML, Site

CONTROLS = ["\x1b[31m", "\x1b]0;own\x07", "\r", "\b", "\x7f", "\x9b31m", "\u202e", "\u2066",
            "\u200b", "\u2028", "\ufeff", "\U000e0041", "\x00", "\xad"]  # fmt: skip
EVIL = "zzz" + "".join(text for text in CONTROLS if text != "\x00") + "\n  row"
TOML_EVIL = json.dumps(EVIL, ensure_ascii=True).replace("\\udb40\\udc41", "\\U000e0041")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def harmful(text: str) -> list[str]:
    return [ascii(control) for control in CONTROLS if control in text]


@pytest.mark.parametrize("text", CONTROLS)
def test_a_control_character_is_escaped(text: str) -> None:
    assert is_plain(shown(text))
    assert not is_plain(text)
    assert is_plain(shown_cell(f"a{text}b"))
    assert not is_all_plain({"a": [{"b": text}]})
    assert not is_all_plain({text: 1})


def test_ordinary_text_is_unchanged() -> None:
    words = "Größe — 深度 عمق 👩\u200d🎨 \\x1b [bold]\n\ttab"
    assert shown(words) == words
    assert is_all_plain({"a": [words, 3, None]})
    assert shown_cell("two\nlines\tand \x1b") == "two lines and \\x1b"
    assert shown("half \udcff") == "half \\udcff"


def test_depth_does_not_matter() -> None:
    deep: list[object] = ["\x1b"]
    for _ in range(20_000):
        deep = [deep]
    assert not is_all_plain(deep)


def test_an_exception_whose_text_fails_has_a_reason() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise ValueError("no")

    assert (reason_of(Odd()), reason_of(ValueError("a")), reason_of(KeyError())) == (
        "Odd",
        "a",
        "KeyError",
    )


@pytest.fixture
def evil(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """An adapter with control characters in every text, a broken adapter, and a model."""
    site.add_toy()
    manifest = EDGES_TOML.replace('"Follow edges"', f"{TOML_EVIL}\npaper = {TOML_EVIL}")
    manifest = manifest.replace('base = "toy"', f'base = "toy"\nname = {TOML_EVIL}')
    site.add_edges(manifest + '[adapter.edges.input]\na = { summary = "\\u001b[1m" }\n')
    site.add("refiners-odd", entry_points=f"[refiners.adapters]\n\x1b[2J{EVIL} = a\x9b:b\u202e\n")
    site.add("refiners-wrong", files={"adapter.toml": f"schema = 1\n[adapter]\n{TOML_EVIL} = 1\n"})
    monkeypatch.setenv("REFINERS_CATALOG", str(site.folder / "no\x1bcatalog"))
    return site


COMMANDS = [
    ("list",),
    ("info", "edges"),
    ("info", "ed\x1bges"),
    ("search", "\x9bzzz"),
    ("why", "edges", "--model", "toy"),
    ("doctor", "--quick"),
    ("validate", "SITE/refiners_wrong/adapter.toml"),
    ("validate", "SITE/no\x1b[2Jwhere"),
    ("tree", "toy", "--with", "\u202eedges"),
    ("verify", "--lock", "SITE/\x1bgone.lock"),
    ("generate", "a", "--adapter", "x=\x1bno.png"),
    ("list", "--\x1b[1m"),
    ("\x1b[2J",),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: ascii(arguments[0]))
def test_no_command_prints_control_characters(evil: Site, arguments: tuple[str, ...]) -> None:
    words = [word.replace("SITE", str(evil.folder)) for word in arguments]
    assert harmful(run(*words).output) == []
    result = run(*words, "--json")
    assert harmful(result.output) == []
    if result.stdout.startswith("{"):
        json.loads(result.stdout)


def test_json_preserves_the_text(evil: Site) -> None:
    (edges,) = json.loads(run("list", "--json").stdout)["adapters"]
    assert edges["summary"] == EVIL


def test_a_cell_cannot_forge_a_row(evil: Site) -> None:
    assert [line for line in run("list").stdout.splitlines() if line.startswith("  row")] == []


def test_output_of_a_plugin_is_escaped(site: Site) -> None:
    site.add_toy()
    prints = 'import sys\nprint("\\x1b[2J out")\nsys.stderr.write("\\x1b]0;own\\x07 err")\n'
    prints += 'sys.stdout.buffer.write(b"\\x9b \\x1b[1m bytes")\n'
    site.add_edges(code=prints + EDGES)
    result = run("tree", "toy", "--with", "edges")
    assert result.exit_code == 0, result.output
    assert harmful(result.output) == []
    for word in ("\\x1b[2J out", "\\x07 err", " bytes"):
        assert word in result.output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_bars_may_only_move_the_cursor() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        bars = SafeStream(stream, has_bars=True)
        bars.write("\r 10%|##\x1b[A")
        bars.write("a\rb\x1b[2J")
    assert terminal.getvalue() == "\r 10%|##\x1b[Aa\\x0db\\x1b[2J"
    assert pipe.getvalue() == "\r 10%|##a\\x0db\\x1b[2J"
    with pytest.raises(TypeError):
        SafeStream(pipe, has_bars=True).write(b"bytes")  # pyright: ignore[reportArgumentType]


def test_a_terminal_gets_our_colours_and_no_foreign_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    with safe_streams():
        say("error: \x1b[5m", color="red")
        print_table("[red]title[/red] \x1b", ("[b]name", "x"), [("[bold]cell[/bold]\x1b[5m", 1)])
    text = terminal.getvalue()
    assert "\x1b[31merror: \\x1b[5m" in text
    assert "\x1b[5m" not in text
    for word in ("[red]title[/red] \\x1b", "[bold]cell[/bold]\\x1b[5m"):
        assert word in text


def test_only_one_module_prints_in_colour() -> None:
    folder = Path(main.callback.__code__.co_filename).parent  # type: ignore[union-attr]
    for path in folder.glob("*.py"):
        if path.name != "output.py":
            text = path.read_text()
            assert not {"click.secho(", "click.style("} & {*re.findall(r"(?:click\.)?\w+\(", text)}
