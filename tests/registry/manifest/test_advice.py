"""The advice of a manifest: read, checked, merged by variant, and given to adapters."""

import json
from typing import Any

import pytest
import refiners
from click.testing import CliRunner
from refiners.cli import main
from refiners.manifest.reader import parse
from refiners.manifest.schema import AdapterManifest, json_schema

from refiners_core import Advice
from refiners_core.sampler_name import SAMPLER_NAMES

from ..conftest import EDGES_TOML, Site

ADVICE = """[adapter.edges.advice]
trigger-words = ["ink", "line"]
strength = { least = 0.5, usual = 0.8 }
sampler = "lcm"
steps = 4
guidance = 1
clip-skip = 1
size = [512, 768]
examples = ["https://example.org/edges.png"]
required = true
"""
VARIANT = "[adapter.edges.variant.advice]\n"


def manifest(advice: str = "", variant: str = "") -> str:
    head, mark, tail = EDGES_TOML.partition("[[adapter.edges.variant]]")
    return f"{head}{advice}\n{mark}{tail}{VARIANT if variant else ''}{variant}"


def read(advice: str = "", variant: str = "") -> Any:
    parsed, faults = parse(manifest(advice, variant), AdapterManifest)
    assert parsed is not None, faults
    spec = parsed.adapter["edges"]
    return spec.advice_for(spec.variant[0])


def faults(advice: str = "", variant: str = "") -> list[str]:
    return [str(fault) for fault in parse(manifest(advice, variant), AdapterManifest)[1]]


def test_all_keys_are_read():
    assert Advice(**read(ADVICE).fields) == Advice(
        trigger_words=("ink", "line"),
        strength=(0.5, 0.8, 0.8),
        sampler="lcm",
        steps=4,
        guidance=1.0,
        clip_skip=1,
        size=(512, 768),
        examples=("https://example.org/edges.png",),
        is_required=True,
    )


def test_a_variant_replaces_single_keys():
    fields = read(ADVICE, "steps = 8\nsize = 64").fields
    assert (fields["steps"], fields["size"], fields["sampler"]) == (8, 64, "lcm")
    assert read("", "steps = 8").fields["steps"] == 8
    assert read() is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('sampler = "eulre"', "sampler: no sampler has the name 'eulre'; did you mean 'euler'?"),
        ("steps = 0", "steps: 0 should be a whole number from 1 on"),
        ("steps = true", "steps: True should be a whole number from 1 on"),
        ("guidance = -1", "guidance: -1 should be a number from 0 on"),
        ("guidance = nan", "guidance: nan should be a number from 0 on"),
        ("timesteps = [1, 2]", "timesteps: they should be decreasing numbers"),
        ("timesteps = [9, 1]\nsteps = 3", "steps: there are 2 timesteps"),
        ("strength = { usual = 1, most = 0.5 }", "strength: it should be the least, the usual"),
        ("strength = { least = 1 }", "strength: 'usual' is missing"),
        ("size = [1, 2, 3]", "size: it should be one side or width and height"),
        ("size = [0]", "size[0]: 0 should be a number of pixels"),
        ("clip-skip = 1.5", "clip-skip: 1.5 should be a whole number from 1 on"),
        ('trigger-words = "ink"', "trigger-words: 'ink': Expected `array`"),
        ('examples = ["a.png"]', "examples[0]: 'a.png' should be an address"),
        ("required = true", "required: only sampler, steps, timesteps, guidance"),
        ("trigger-word = 1", "trigger-word: no such key. Did you mean 'trigger-words'?"),
    ],
)
def test_faults_have_the_line_and_the_key(text, fault):
    for arguments, place in (
        ((f"[adapter.edges.advice]\n{text}\n", ""), "advice"),
        (("", f"{text}\n"), "variant[0].advice"),
    ):
        (message,) = faults(*arguments)
        number, _, what = message.removeprefix("line ").partition(": ")
        assert what.startswith(f"adapter.edges.{place}.{fault}")
        line = manifest(*arguments).splitlines()[int(number) - 1]
        assert line.split(" ")[0] == fault.partition(":")[0].partition("[")[0]


def test_required_advice_may_have_its_settings_in_the_variants():
    assert not faults("[adapter.edges.advice]\nrequired = true\n", "steps = 4\n")


def test_the_schema_for_editors_lists_the_samplers():
    table = json_schema(AdapterManifest)["$defs"]["AdviceTable"]["properties"]
    assert table["sampler"]["anyOf"][0]["examples"] == [*SAMPLER_NAMES]
    assert table["trigger-words"]["type"] == "array"


# --- adapters and the shell ----------------------------------------------------------------------


def test_an_adapter_has_the_advice_before_and_after_it_is_worn(site: Site):
    site.add_toy()
    site.add_edges(manifest(ADVICE))
    adapter = refiners.load_adapter("edges")
    assert adapter.advice == Advice(**read(ADVICE).fields)
    assert adapter.inject(refiners.load_model("toy")).advice == adapter.advice


def test_an_adapter_has_the_advice_of_its_variant_once_it_is_worn(site: Site):
    site.add_toy()
    other = '[[adapter.edges.variant]]\nbase = "other"\nname = "other"\n'
    site.add_edges(manifest(ADVICE, "steps = 8\n") + other)
    adapter = refiners.load_adapter("edges")
    assert adapter.advice == Advice()
    assert adapter.inject(refiners.load_model("toy")).advice.steps == 8


def test_what_the_caller_sets_stays(site: Site):
    site.add_toy()
    site.add_edges(manifest(ADVICE))
    adapter = refiners.load_adapter("edges")
    adapter.advice = Advice()
    assert adapter.inject(refiners.load_model("toy")).advice == Advice()


def test_info_prints_advice(site: Site):
    site.add_edges(manifest(ADVICE))
    printed = CliRunner().invoke(main, ["info", "edges"]).stdout
    section = printed.partition("\nAdvice\n")[2].partition("\n\n")[0]
    rows = dict(line.strip().split("  ", 1) for line in section.splitlines())
    assert {name: text.strip() for name, text in rows.items()} == {
        "trigger words": "ink, line",
        "strength": "usual 0.8, least 0.5",
        "sampler": "lcm",
        "steps": "4",
        "guidance": "1",
        "clip skip": "1",
        "size": "512 x 768 pixels",
        "examples": "https://example.org/edges.png",
        "required": "yes: a generation follows it",
    }


def test_info_prints_the_advice_of_each_variant(site: Site):
    other = '[[adapter.edges.variant]]\nname = "other"\n'
    site.add_edges(manifest(ADVICE, "steps = 8\n") + other)
    printed = CliRunner().invoke(main, ["info", "edges"]).stdout
    assert "\nAdvice for toy\n" in printed
    assert "\nAdvice for other\n" in printed
    facts = json.loads(CliRunner().invoke(main, ["info", "edges", "--json"]).stdout)
    assert facts["advice"]["steps"] == 4
    assert facts["advice"]["trigger-words"] == ["ink", "line"]
    assert [variant["advice"]["steps"] for variant in facts["variants"]] == [8, 4]


def test_no_advice_prints_nothing(site: Site):
    site.add_edges()
    assert "Advice" not in CliRunner().invoke(main, ["info", "edges"]).stdout
