"""A small catalog whose texts are hostile, its site, and a reader of its pages."""

import json
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from refiners.catalog import SHIPPED
from refiners.catalog.build import add
from refiners.catalog.entry import Release, entry_path
from refiners.host.text import is_plain
from refiners.page import Extras, Notices, read_plugins, write_site
from refiners.page.extras import read_extras

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}{% raw %}",
    "<!-- ' onmouseover='alert(1)",
    "\u202egnp.exe\u2066",  # reorders what follows
    "\x1b[31m\x00\u200b\ufeff",
    "javascript:alert(1)",
)
"""Texts that would break a page that trusts them."""
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63"
    "c8cacc01000315014c3ee59d850000000049454e44ae426082"
)
"""A picture of one pixel."""
PAGES = (
    "index.html",
    "index.html?q=edges&base=sdxl",
    "list/all.html",
    "list/base-sd15.html",
    "matrix/matrix.html",
    "feeds.html",
    "plugin/refiners-controlnet/adapter-controlnet-canny.html",
    "plugin/refiners-playground/model-playground.html",
    "plugin/refiners-preprocessors/preprocessor-canny.html",
)
"""Pages of each sort in the site of the shipped catalog."""
COMMIT = "a" * 40
DIGEST = "b" * 64

REPORT = {
    "schema": 1,
    "name": "edges",
    "dist": "refiners-edges",
    "version": "1.0",
    "core": "1.0.0",
    "date": "2026-11-26",
    "checks": [
        {"check": "strict-loading", "verdict": "fail", "reason": "swallows unknown keys"},
        {"check": "floor", "verdict": "not-run", "reason": "no such core"},
        {"check": "eject", "verdict": "pass", "reason": None},
    ],
}
"""A conformance report with a check of each verdict."""


def spec(**keys: Any) -> dict[str, Any]:
    """Returns the table of an adapter."""
    table = {
        "factory": "m.adapter:Made",
        "summary": "Follow the edges of a picture",
        "core-api": ">=1.0,<2",
        "license": "MIT",
        "kind": "control",
        "variant": [{"base": "sd15", "targets": [{"slot": "unet.mid.output", "stage": "branch"}]}],
    }
    return table | keys


def release(name: str = "edges", *, version: str = "1.0", **keys: Any) -> Release:
    """Returns a release of an adapter."""
    dist = keys.pop("distribution", f"refiners-{name}")
    return Release(name=name, kind="adapter", distribution=dist, version=version, spec=spec(**keys))


def record(folder: Path, published: Release, **facts: Any) -> None:
    """Adds facts to the line of a release, as later versions of the catalog have them."""
    path = entry_path(folder, published)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if (line["name"], line["version"]) == (published.name, published.version):
            line |= facts
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def built(folder: Path, *releases: Release, extras: Extras | None = None, **options: Any) -> Path:
    """Writes the site of a catalog with these releases."""
    catalog = folder / "catalog"
    add(catalog, releases)
    return site_of(catalog, folder / "site", extras, **options)


def site_of(catalog: Path, out: Path, extras: Extras | None = None, **options: Any) -> Path:
    """Writes the site of a catalog."""
    write_site(out, read_plugins(catalog), Notices.of(catalog), extras, **options)
    return out


class Page(HTMLParser):
    """The elements and the text of a page."""

    VOID = ("meta", "link", "img", "input")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(path.read_text())
        assert self._open == [], f"{path} leaves elements open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1:] == [tag], f"</{tag}> closes another element"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def links(self) -> Iterator[str]:
        for tag, attributes in self.elements:
            for name in ("href", "src"):
                if name in attributes and (tag, attributes.get("rel")) != ("link", "canonical"):
                    yield attributes[name]


def adapter_page(site: Path, name: str = "edges", dist: str = "") -> Page:
    """Returns the page of an adapter."""
    return Page(site / f"plugin/{dist or f'refiners-{name}'}/adapter-{name}.html")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of a catalog in which every free text is hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    published: list[Release] = []
    for number, raw in enumerate(HOSTILE):
        text = raw if is_plain(raw) else "fine"  # the catalog refuses others in manifests
        published.append(
            release(
                f"bad-{number}",
                paper=text,
                license=text,
                kind=text,
                aliases=["also"],
                conflicts=[text],
                input={"picture": {"summary": text}},
                external={"thing": {"summary": text, "license": text, "home": text}},
                advice={"trigger-words": [text], "sampler": text},
                weights={
                    "w": {
                        "source": "hf:a/b",
                        "file": "w.safetensors",
                        "revision": COMMIT,
                        "sha256": DIGEST,
                        "license": text,
                    },
                },
                variant=[
                    {
                        "name": text,
                        "base": "sd15",
                        "weights": "w",
                        "targets": [{"slot": text, "stage": "branch"}],
                    },
                ],
            )
        )
    catalog = folder / "catalog"
    catalog.mkdir()
    by_path: dict[Path, list[str]] = {}
    for number, each in enumerate(published):
        text = HOSTILE[number]
        line = {
            "name": each.name, "kind": each.kind, "distribution": each.distribution,
            "version": each.version, "spec": each.spec,
            "publisher": {text: text, "repository": text},
            "conformance": {"version": text, "core": text, "date": text, "checks": [
                {"check": text, "verdict": "fail", "reason": text},
                {"check": text, "verdict": "pass", "reason": None}]},
        }  # fmt: skip
        by_path.setdefault(entry_path(catalog, each), []).append(json.dumps(line))
    for path, lines in by_path.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    pictures = folder / "pictures"
    for number in range(len(HOSTILE)):
        home = pictures / f"refiners-bad-{number}"
        home.mkdir(parents=True)
        (home / "shot.png").write_bytes(PIXEL)
        (home / "shot.py").write_text(f'"""{HOSTILE[number].replace(chr(0), "")}"""\n')
    (catalog / "advisories.toml").write_text(
        "schema = 1\n"
        + "".join(
            f"[[advisory]]\nid = {json.dumps(f'A-{n} {text}')}\nreason = {json.dumps(text)}\n"
            f"package = 'refiners-bad-{n}'\ninstead = {json.dumps(text)}\nstatus = 'deprecated'\n"
            for n, text in enumerate(HOSTILE)
            if text.isprintable()
        )
    )
    return site_of(catalog, folder / "site", read_extras(folder=pictures))


@pytest.fixture(scope="session")
def shipped_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The site of the shipped catalog, with an index of several scripts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("refiners.page.shard.SHARD_BYTES", 4000)
        yield site_of(SHIPPED, tmp_path_factory.mktemp("browser") / "site")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser without a window."""
    from selenium import webdriver

    browser, service = shutil.which("chromium"), shutil.which("chromedriver")
    assert None not in (browser, service), "on Debian: apt install chromium chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = browser or ""
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(service))
    started.set_script_timeout(60)
    yield started
    started.quit()


@pytest.fixture
def driver(chromium: Any) -> Any:
    """The browser with a wide, light page, scripts and empty logs."""
    shown_as(chromium)
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    chromium.get("about:blank")
    chromium.get_log("browser")
    chromium.get_log("performance")
    return chromium


def shown_as(driver: Any, width: int = 1280, scheme: str = "light", motion: str = "") -> None:
    """Sets the width of pages, and what the system prefers."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": motion or "no-preference"},
    ]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def go(driver: Any, site: Path, page: str) -> None:
    """Opens a page of a site, and waits for the results of its search."""
    driver.get(f"{site.as_uri()}/{page}")
    if "?" in page:
        complete(driver)


def complete(driver: Any) -> int:
    """Waits until the whole index is searched, and returns the number of results."""
    text = driver.execute_async_script(
        "const done = arguments[0];"
        "const count = document.getElementById('count');"
        "const hits = document.getElementById('hits');"
        "const form = new FormData(document.getElementById('search'));"
        "const query = `${new URLSearchParams([...form].filter(([, value]) => value))}`;"
        "const isDone = () => /found$|Nothing/.test(count.textContent);"
        "const look = () => isDone() && hits.dataset.query === query"
        " ? done(count.textContent) : setTimeout(look, 10); look();"
    )
    return 0 if text.startswith("Nothing") else int(text.split()[0])
