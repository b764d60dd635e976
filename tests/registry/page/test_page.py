"""The page of a plugin has what its manifest, its report, its wheel and advisories state."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from refiners.catalog.build import add
from refiners.cli import main
from refiners.errors import CatalogError, OptionError
from refiners.page import read_extras, read_plugins, write_site
from refiners.page.site import PAGE_BYTES

from .conftest import (
    COMMIT,
    DIGEST,
    REPORT,
    Page,
    adapter_page,
    built,
    record,
    release,
    site_of,
)

FILE = {
    "source": "hf:org/edges",
    "file": "w.safetensors",
    "revision": COMMIT,
    "sha256": DIGEST,
    "size": 2_500_000,
    "license": "cc-by-nc-4.0",
}


def test_the_page_of_an_adapter_has_its_facts(tmp_path: Path):
    edges = release(
        weights={"w": FILE},
        paper="arXiv:2302.05543",
        conflicts=["other"],
        input={"picture": {"summary": "edges", "preprocessor": "canny", "range": [0.0, 1.0]}},
        advice={"steps": 4, "strength": {"usual": 0.8, "least": 0.5}},
        variant=[
            {"base": "sd15", "weights": "w",
             "targets": [{"slot": "unet.mid.output", "stage": "branch"}]},
        ],
    )  # fmt: skip
    page = adapter_page(built(tmp_path, edges))
    for text in (
        "pip install refiners-edges",
        'model = refiners.load_model("sd15") adapter = refiners.load_adapter("edges", model)',
        'refiners generate "a red heart" --model sd15 --adapter edges=picture.png',
        "edges; canny makes it from a photo, 0 to 1",
        "strength usual 0.8, least 0.5 steps 4",
        "w 2.5 MB hf:org/edges / w.safetensors",
        f"Commit {COMMIT} SHA-256 {DIGEST} Licence cc-by-nc-4.0, non-commercial use only",
        "All pinned",
        "Licence of the code MIT Licence of the weights cc-by-nc-4.0",
        "Not together with other",
        "Its publisher has not supplied a report.",
        "1.0 First release in the catalog, for core API >=1.0,<2",
    ):
        assert text in page.text
    assert "https://arxiv.org/abs/2302.05543" in [*page.links()]


def test_the_slots_that_it_edits_are_marked_on_the_tree_of_the_model(tmp_path: Path):
    page = adapter_page(built(tmp_path, release()))
    edited = [a for tag, a in page.elements if tag == "code" and a.get("class") == "edited"]
    assert len(edited) == 1
    assert "sd15 1 slot unet mid output branch" in page.text
    assert "denoise text_encoder autoencoder" in page.text
    anywhere = release(
        "any", variant=[{"targets": [{"slot": "decoder.attend", "stage": "output"}]}]
    )
    text = adapter_page(built(tmp_path / "2", anywhere), "any").text
    assert "decoder attend output" in text
    unknown = release(
        "odd", variant=[{"base": "mine", "targets": [{"slot": "x.y", "stage": "before"}]}]
    )
    assert "mine 1 slot x y before" in adapter_page(built(tmp_path / "3", unknown), "odd").text


def test_a_report_is_shown_with_reasons_and_never_hides_a_plugin(tmp_path: Path):
    catalog = tmp_path / "catalog"
    add(catalog, [release()])
    record(
        catalog, release(), conformance=REPORT, publisher={"repository": "https://example.org/r"}
    )
    site = site_of(catalog, tmp_path / "site")
    page = adapter_page(site)
    assert "1 passed, 1 failed, 1 not run, with core 1.0.0, on 2026-11-26" in page.text
    assert "failed strict-loading swallows unknown keys not run floor no such core" in page.text
    assert "https://example.org/r" in [*page.links()]
    assert "1/3" in Page(site / "matrix/matrix.html").text
    assert "edges" in Page(site / "list/all.html").text
    for damaged in ([], "x", {"version": "1"}, {**REPORT, "checks": [{"verdict": "great"}]}):
        record(catalog, release(), conformance=damaged)
        site_of(catalog, site)
        assert "has not supplied a report" in adapter_page(site).text


def test_versions_have_their_changes(tmp_path: Path):
    wider = [{"base": base, "targets": []} for base in ("sd15", "sdxl")]
    site = built(
        tmp_path,
        release(version="1.9"),
        release(version="1.10", summary="Trace edges", variant=wider),
        release(version="1.11", summary="Trace edges", variant=wider),
    )
    text = adapter_page(site).text
    assert text.index("1.11 No change") < text.index("1.10 changed") < text.index("1.9 First")
    assert "changed summary from Follow the edges of a picture to Trace edges" in text
    assert "added variant sdxl.base sdxl" in text
    assert "removed variant sd15.targets unet.mid.output.stage branch" in text


def test_another_publisher_is_noticed(tmp_path: Path):
    catalog = tmp_path / "catalog"
    old, new = release(version="1.0"), release(version="1.1")
    add(catalog, [old, new])
    record(catalog, old, publisher={"kind": "GitHub", "repository": "org/edges", "verified": True})
    record(catalog, new, publisher={"kind": "GitHub", "repository": "evil/edges"})
    page = adapter_page(site_of(catalog, tmp_path / "site"))
    assert "Published by GitHub evil/edges; before by GitHub org/edges." in page.text
    assert "claimed by the index, not verified" in page.text
    assert "https://github.com/evil/edges" in [*page.links()]


def test_an_advisory_withdraws_what_it_names(tmp_path: Path):
    site = built(tmp_path, release(version="1.0"), release("fine"), release("old"))
    (tmp_path / "catalog/advisories.toml").write_text(
        'schema = 1\n[[advisory]]\nid = "R-1"\nreason = "leaks"\npackage = "Refiners_Edges"\n'
        'lowest = "1.2"\n[[advisory]]\nid = "R-2"\nreason = "slow"\npackage = "refiners-ol*"\n'
        'status = "deprecated"\ninstead = "fine"\n'
    )
    site_of(tmp_path / "catalog", site)
    edges, old = adapter_page(site), adapter_page(site, "old")
    assert "refiners-edges 1.0 is blocked. leaks R-1 Version 1.2 and later" in edges.text
    assert "It is blocked; refiners refuses to load it." in edges.text
    assert "pip install" not in edges.text
    assert "refiners-old 1.0 is deprecated. slow R-2 Use fine." in old.text
    assert "pip install" in old.text
    assert "blocked" in Page(site / "list/all.html").text
    assert "blocked" not in adapter_page(site, "fine").text
    by_hash = f'[[advisory]]\nid = "R-3"\nreason = "bad"\nstatus = "yanked"\nsha256 = "{DIGEST}"\n'
    again = tmp_path / "hash"
    built(again, release(weights={"w": FILE}))
    (again / "catalog/advisories.toml").write_text(f"schema = 1\n{by_hash}")
    site_of(again / "catalog", again / "site")
    assert f"hf:org/edges@{COMMIT[:8]}/w.safetensors is yanked" in adapter_page(again / "site").text


def test_two_plugins_of_one_name_are_called_by_their_packages(tmp_path: Path):
    site = built(tmp_path, release(), release(distribution="acme-edges"))
    for dist in ("refiners-edges", "acme-edges"):
        assert f'load_adapter("{dist}:edges", model)' in adapter_page(site, dist=dist).text


def test_a_fetched_copy_adds_plugins_and_redefines_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first, second = tmp_path / "first", tmp_path / "second"
    add(first, [release()])
    later = [release(version="1.1"), release("fine"), release(distribution="evil-edges")]
    add(second, later)
    for module in ("refiners.catalog", "refiners.page.published"):
        monkeypatch.setattr(f"{module}.folders", lambda: (first, second))
    known = [(plugin.entry.id, plugin.entry.version) for plugin in read_plugins()]
    assert known == [("refiners-edges:edges", "1.1"), ("refiners-fine:fine", "1.0")]


def test_a_manifest_of_a_later_schema_has_a_page(tmp_path: Path):
    edges = release(novel={"key": 1}, license=["MIT"], weights="none")
    text = adapter_page(built(tmp_path, edges)).text
    assert "A later schema describes this release" in text
    assert "pip install refiners-edges" in text


def test_a_page_stays_small_whatever_its_manifest_has(tmp_path: Path):
    many = {f"file-{n}": FILE | {"source": f"hf:org/{'x' * 900}-{n}"} for n in range(900)}
    edges = release(
        weights=many,
        conflicts=[f"{'c' * 300}-{n}" for n in range(900)],
        aliases=[f"a{n}" for n in range(900)],
        summary="word " * 20_000,
        input={f"i{n}": {"summary": "s" * 900} for n in range(900)},
        variant=[
            {"base": f"base-{n}", "weights": f"file-{n}",
             "targets": [{"slot": f"a{m}.b{n}", "stage": "branch"} for m in range(90)]}
            for n in range(90)
        ],
    )  # fmt: skip
    name = "n" * 400
    long = release(name, distribution="refiners-long")
    site = built(tmp_path, edges, *(release(version=f"0.{n}") for n in range(200)), long)
    page = adapter_page(site)
    assert "more: see refiners info" in page.text
    assert max(p.stat().st_size for p in site.rglob("*") if p.is_file()) <= PAGE_BYTES
    assert max(len(p.name) for p in site.rglob("*")) < 120


def test_the_command_writes_a_site_and_replaces_only_its_own(tmp_path: Path):
    catalog, out = tmp_path / "catalog", tmp_path / "site"
    add(catalog, [release()])

    def run(*arguments: object):
        words = ["catalog", "page", *map(str, arguments)]
        return CliRunner().invoke(main, words)

    result = run(out, "--from", catalog, "--json", "--base-url", "https://example.org/c")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.output)
    assert facts["plugins"] == 1
    assert Path(facts["page"]).is_file()
    head = (out / "index.html").read_text()
    assert '<link rel="canonical" href="https://example.org/c/index.html">' in head
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    add(catalog, [release("fine")])
    assert run(out, "--from", catalog).exit_code == 0
    assert (out / "plugin/refiners-fine/adapter-fine.html").is_file()
    assert before.keys() < {*out.rglob("*")}
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    result = run(mine, "--from", catalog)
    assert result.exit_code == 2
    assert "has files that are not of a catalog's page" in result.output
    assert [*mine.iterdir()] == [mine / "thesis.txt"]
    assert {p.name for p in tmp_path.iterdir()} == {"catalog", "site", "mine"}
    assert "has no entries" in run(out, "--from", mine).output


def test_files_beside_the_site_are_kept(tmp_path: Path):
    site = built(tmp_path, release(), release("old"))
    link = tmp_path / "link"
    link.symlink_to(site)
    others = {".git/HEAD": "ref", "CNAME": "example.org", "plugin/mine.txt": "mine"}
    for name, text in others.items():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(text)
    (site / ".git/here").symlink_to("HEAD")
    plugins = [each for each in read_plugins(tmp_path / "catalog") if each.entry.name != "old"]
    for out in (site, link):
        write_site(out, plugins)
        assert {name: (site / name).read_text() for name in others} == others
        assert (site / ".git/here").is_symlink()
        assert link.is_symlink()
        assert not [*site.rglob("adapter-old.html")]
    names = (site / "catalog-page.txt").read_text().splitlines()[1:]
    written = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert {*names} == written - {*others, ".git/here"}
    (site / "list").rename(site / "lists")
    (site / "catalog-page.txt").write_text("\n")
    with pytest.raises(OptionError, match="which needs its name"):
        write_site(site, plugins)


def test_a_failing_build_leaves_the_site_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    site = built(tmp_path, release())
    before = {p: p.read_bytes() for p in site.rglob("*") if p.is_file()}
    monkeypatch.setattr("refiners.page.site.sheet_of", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_site(site, read_plugins(tmp_path / "catalog"))
    assert before == {p: p.read_bytes() for p in site.rglob("*") if p.is_file()}
    assert {p.name for p in tmp_path.iterdir()} == {"catalog", "site"}


def test_a_damaged_catalog_is_an_error(tmp_path: Path):
    catalog = tmp_path / "catalog"
    add(catalog, [release()])
    next(catalog.glob("entries/*.jsonl")).write_text("{")
    with pytest.raises(CatalogError, match="cannot be read"):
        read_plugins(catalog)
    with pytest.raises(CatalogError, match="is not a wheel"):
        read_extras([catalog / "search.json"])
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="has files"):
        write_site(tmp_path / "file", ())
