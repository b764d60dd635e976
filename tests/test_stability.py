"""Public names change by rule: announced, after one version of warnings, and hooks may grow."""

import ast
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from refiners_core import API_VERSION, hookspecs
from refiners_core.deprecation import ApiDeprecationWarning, deprecated, gone_in
from refiners_core.errors import HookError, Notice
from refiners_core.hookspecs import hookimpl, manager

from . import api_record as api

ROOT = Path(__file__).parents[1]
SOURCES = [*ROOT.glob("refiners_core/**/*.py"), *ROOT.glob("registry/refiners/**/*.py")]

# --- the record of signatures ------------------------------------------------------------------


def test_no_public_signature_has_changed_without_a_version_and_a_line_in_the_changelog():
    record = api.read(api.RECORD.read_text())
    now = api.current()
    assert api.broken(record, now) == [] or record.version != API_VERSION, "raise API_VERSION"
    assert api.renewed(record, now, API_VERSION) == record, (
        "public signatures changed: run python tests/api_record.py"
    )
    assert api.unannounced(record, api.CHANGELOG.read_text()) == []


OLD = api.Record("1.0", {"m.f": "(a, b=, *, c=)", "m.C": ""}, ())


@pytest.mark.parametrize(
    ("now", "breaks"),
    [
        ({"m.f": "(a, b=, *, c=)", "m.C": "", "m.new": "()"}, []),
        ({"m.f": "(a=, b=, d=, *, c=, e=)", "m.C": ""}, []),
        ({"m.f": "(a, b=, c=)", "m.C": ""}, []),
        ({"m.f": "(a, b=, **more)", "m.C": ""}, []),
        ({"m.f": "(a, b=, *, c=)"}, [("removed", "m.C")]),
        ({"m.f": "(a, *, b=, c=)", "m.C": ""}, [("changed", "m.f")]),
        ({"m.f": "(b=, a=, *, c=)", "m.C": ""}, [("changed", "m.f")]),
        ({"m.f": "(a, b, *, c=)", "m.C": ""}, [("changed", "m.f")]),
        ({"m.f": "(a, b=, *, c=, d)", "m.C": ""}, [("changed", "m.f")]),
        ({"m.f": "(a, b=, *, c)", "m.C": ""}, [("changed", "m.f")]),
        ({"m.f": "(a, b=)", "m.C": ""}, [("changed", "m.f")]),
        ({"m.f": "", "m.C": ""}, [("changed", "m.f")]),
    ],
)
def test_only_changes_that_break_calls_need_a_version(now, breaks):
    assert api.broken(OLD, now) == breaks
    if not breaks:
        assert api.renewed(OLD, now, "1.0").signatures == now
        return
    with pytest.raises(ValueError, match="raise API_VERSION"):
        api.renewed(OLD, now, "1.0")
    newer = api.renewed(OLD, now, "1.1")
    assert api.read(newer.text()) == newer
    name = breaks[0][1].rpartition(".")[2]
    assert api.unannounced(newer, "nothing") == [name]
    assert api.unannounced(newer, f"- `{name}` takes other arguments.") == []


def test_a_signature_names_what_callers_depend_on():
    def f(a, /, b, *rest, c=1, **more): ...

    class C:
        def __init__(self, x, *, y=None): ...

    assert api.signature_of(f) == "(/a, b, *rest, c=, **more)"
    assert api.signature_of(C) == "(x, *, y=)"
    assert api.signature_of(1) == ""


# --- deprecations ------------------------------------------------------------------------------


@deprecated(since="1.1", instead="new()")
def old(x):
    return x


@deprecated(since="1.1", instead="New")
class Old:
    def __init__(self, x=1):
        self.x = x

    @deprecated(since="1.1", instead="Old.y")
    def z(self):
        return 2


@deprecated(since="1.1", instead="Pair")
class OldPair:
    def __new__(cls, left, right):
        self = super().__new__(cls)
        self.both = left, right
        return self


def test_a_deprecated_class_without_a_constructor_works():
    with pytest.warns(ApiDeprecationWarning, match="use Pair"):
        assert OldPair(1, right=2).both == (1, 2)


def test_a_deprecated_name_works_and_warns_once_at_the_line_that_uses_it():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(3):
            assert old(7) == 7
            assert Old().z() == 2
        assert old(8) == 8
    assert [Path(warning.filename).name for warning in seen] == ["test_stability.py"] * 4
    assert {warning.category for warning in seen} == {ApiDeprecationWarning}
    text = str(seen[0].message)
    assert text.endswith("old is deprecated since API 1.1 and gone in API 1.2; use new().")
    assert len({warning.lineno for warning in seen}) == 3


def marks(source: str) -> Iterator[str]:
    """Yields the version of each deprecation in a source."""
    for node in ast.walk(ast.parse(source)) if "deprecated(" in source else ():
        name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if name.rpartition(".")[2] in ("deprecated", "warn_deprecated"):
            values = {keyword.arg: keyword.value for keyword in node.keywords}
            if isinstance(since := values.get("since"), ast.Constant):
                yield str(since.value)


def overdue(source: str, version: str) -> list[str]:
    def number(text: str) -> tuple[int, ...]:
        return tuple(map(int, re.findall(r"\d+", text)[:2]))

    return [since for since in marks(source) if number(version) >= number(gone_in(since))]


def test_no_deprecation_is_overdue():
    late = {str(path): overdue(path.read_text(), API_VERSION) for path in SOURCES}
    assert {path: since for path, since in late.items() if since} == {}, "remove these names"


@pytest.mark.parametrize(
    ("version", "late"), [("1.1", []), ("1.2", ["1.1"]), ("2.0", ["1.1"]), ("1.10", ["1.1"])]
)
def test_an_overdue_deprecation_is_noticed(version, late):
    source = '@deprecated(since="1.1", instead="x")\ndef f(): ...\n'
    assert overdue(source, version) == late
    call = 'warn_deprecated("f(a=)", since="1.1", instead="x")'
    assert overdue(call, version) == late


# --- hooks -------------------------------------------------------------------------------------


class Shorter:
    """Hooks of an earlier version, before `event` existed."""

    def __init__(self):
        self.calls = 0

    @hookimpl
    def before_inject(self):
        self.calls += 1

    @hookimpl(specname="after_inject")
    def afterwards(self, event, more=None):
        self.calls += 1


class Unknown:
    @hookimpl
    def before_inject(self, event, tree):
        raise AssertionError


class Misspelt(Shorter):
    @hookimpl
    def before_injct(self, event):
        raise AssertionError


@pytest.fixture
def registered() -> Iterator[None]:
    """Leaves the hooks of a test as the only ones; those of the registry read the events."""
    others = [(name, plugin) for name, plugin in manager().list_name_plugin() if plugin]
    for name, _ in others:
        manager().unregister(name=name)
    yield
    if manager().has_plugin("refiners-x:hooks"):
        manager().unregister(name="refiners-x:hooks")
    for name, plugin in others:
        manager().register(plugin, name=name)


@pytest.mark.usefixtures("registered")
def test_a_hook_may_take_fewer_arguments_than_it_could():
    hooks = Shorter()
    hookspecs.register(hooks, "refiners-x:hooks", "refiners-x")
    manager().hook.before_inject(event=None)
    manager().hook.after_inject(event=None)
    assert hooks.calls == 2


@pytest.mark.usefixtures("registered")
def test_an_argument_that_a_hook_does_not_pass_is_an_error_by_name():
    with pytest.raises(
        HookError, match="before_inject of refiners-x takes the argument 'tree'"
    ) as caught:
        hookspecs.register(Unknown(), "refiners-x:hooks", "refiners-x")
    assert caught.value.dist == "refiners-x"
    assert "passes event" in caught.value.message
    assert not manager().has_plugin("refiners-x:hooks")


@pytest.mark.usefixtures("registered")
def test_a_hook_that_does_not_exist_is_a_notice_and_the_others_work():
    hooks = Misspelt()
    with pytest.warns(
        Notice, match="refiners-x has a hook 'before_injct'.*did you mean before_inject"
    ):
        hookspecs.register(hooks, "refiners-x:hooks", "refiners-x")
    manager().hook.before_inject(event=None)
    assert hooks.calls == 1


def test_the_errors_of_hook_modules_reach_the_list_of_broken_ones(tmp_path, monkeypatch):
    info = tmp_path / "refiners_odd-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: refiners-odd\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{hookspecs.GROUP}]\nhooks = odd_hooks_module\n")
    (tmp_path / "odd_hooks_module.py").write_text(
        "from refiners_core.hookspecs import hookimpl\n"
        "@hookimpl\n"
        "def fetch_weights(event, path): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (odd,) = [broken for broken in hookspecs.load_installed() if broken.dist == "refiners-odd"]
    assert "fetch_weights" in str(odd.error)
    assert "'path'" in str(odd.error)
