"""Measures the catalog's page with 10,000 adapters: its build, its sizes, its search in Chromium.

Run `python benchmarks/catalog_page.py`. It prints each figure beside its bar and exits with 1 if a
bar is missed. The search needs Chromium, chromedriver and selenium (`make browser`); without them,
only the build is measured.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from refiners.catalog.entry import Release, entry_path
from refiners.page import Notices, read_plugins, write_site

from registry import Figure

ADAPTERS = 10_000
KINDS = ("control", "weights", "image-prompt", "guidance", "sampling", "style", "tokens", "cache")
BASES = ("sd15", "sdxl", "flux", "sd3", "decoder", None)
LICENSES = ("MIT", "apache-2.0", "openrail++", "cc-by-nc-4.0", "other")
SLOTS = ("unet.input", "unet.skip.write", "unet.mid.output", "unet.cross_attention.attend")
WORD = ("edges", "depth", "pose", "style", "light", "colour", "region", "face", "hand", "ink")
TRIES = 7


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the catalog's page.")
    parser.add_argument("--adapters", type=int, default=ADAPTERS, help="published adapters")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        catalog, site = Path(folder) / "catalog", Path(folder) / "site"
        write_catalog(catalog, options.adapters)
        figures = [*built(catalog, site, options.adapters), *searched(site)]
    for figure in figures:
        print(figure)
    if any(figure.value > figure.bar for figure in figures):
        sys.exit(1)


def write_catalog(folder: Path, count: int) -> None:
    """Writes a synthetic catalog: adapters with files, advice, versions and reports."""
    lines: dict[Path, list[bytes]] = {}
    for number in range(count):
        for release in releases(number):
            path = entry_path(folder, msgspec.convert(release, Release))
            lines.setdefault(path, []).append(msgspec.json.encode(release) + b"\n")
    for path, content in lines.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(content))


def releases(number: int) -> Iterator[dict[str, object]]:
    """Yields the releases of a synthetic adapter, one to three."""
    dice = random.Random(number)
    name = f"{dice.choice(WORD)}-{dice.choice(WORD)}-{number}"
    files = {f"w{i}": file(dice) for i in range(dice.randint(1, 4))}
    bases = dice.sample(BASES, k=dice.randint(1, 3))
    targets = [{"slot": slot, "stage": "branch"} for slot in SLOTS[: dice.randint(1, 4)]]
    for version in range(dice.randint(1, 3)):
        spec: dict[str, object] = {
            "factory": "m.adapter:Made",
            "summary": f"Follow the {dice.choice(WORD)} of a picture and keep its {name}, "
            f"release {version}, as well as a longer text of usual length",
            "core-api": ">=1.0,<2",
            "license": dice.choice(LICENSES),
            "kind": dice.choice(KINDS),
            "paper": f"arXiv:2302.{number:05d}",
            "advice": {"steps": 4, "guidance": 1.0, "strength": {"usual": 0.8, "least": 0.4}},
            "weights": files,
            "variant": [
                {"targets": targets, "weights": "w0"} | ({"base": base} if base else {})
                for base in bases
            ],
        }
        checks = [{"check": f"law-{i}", "verdict": "pass", "reason": None} for i in range(20)] + [
            {"check": "floor", "verdict": "not-run", "reason": "no such core is installed"}
        ]
        yield {
            "name": name,
            "kind": "adapter",
            "distribution": f"refiners-made-{number // 3}",
            "version": f"1.{version}",
            "spec": spec,
            "conformance": {"schema": 1, "name": name, "dist": f"refiners-made-{number // 3}",
                            "version": f"1.{version}", "core": "1.0",
                            "date": f"2026-11-{number % 28 + 1:02d}", "checks": checks},
        }  # fmt: skip


def file(dice: random.Random) -> dict[str, object]:
    """Returns a pinned file."""
    return {
        "source": "hf:organisation/repository",
        "file": "model.safetensors",
        "revision": f"{dice.getrandbits(160):040x}",
        "sha256": f"{dice.getrandbits(256):064x}",
        "size": dice.randint(1, 10**9),
        "license": dice.choice(LICENSES),
    }


def built(catalog: Path, site: Path, count: int) -> Iterator[Figure]:
    """Yields the time of a build, and the sizes of what it writes."""
    begin, used = time.perf_counter(), time.process_time()
    written = write_site(site, read_plugins(catalog), Notices.of(catalog))
    seconds, used = time.perf_counter() - begin, time.process_time() - used
    yield Figure(f"build of {count} adapters, {written.files} files", seconds, 30, "s")
    yield Figure("processor time of the build", used, 30, "s")
    yield Figure("largest page", written.largest_page / 1000, 100, "kB")
    rest = [path for path in site.rglob("*") if path.suffix in (".js", ".css", ".json", ".svg")]
    yield Figure("largest script, style sheet or feed", size(rest) / 1000, 100, "kB")
    yield Figure("first page", (site / "index.html").stat().st_size / 1000, 100, "kB")


def size(paths: list[Path]) -> int:
    return max(path.stat().st_size for path in paths)


def searched(site: Path) -> Iterator[Figure]:
    """Yields the times from a key to the first result, as the page itself measures them."""
    if not shutil.which("chromedriver"):
        print("chromedriver is not installed: the search is left out")
        return
    try:
        from selenium import webdriver
    except ImportError:
        print("selenium is not installed: the search is left out")
        return
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        cold = [timed(driver, site, warm=False) for _ in range(TRIES)]
        warm = [timed(driver, site, warm=True) for _ in range(TRIES)]
    finally:
        driver.quit()
    yield Figure("first result after the first key, index not loaded", median(cold, 0), 100, "ms")
    yield Figure(
        "complete result after the first key, index not loaded", median(cold, 1), 1000, "ms"
    )
    yield Figure("complete result after a key, index loaded", median(warm, 1), 100, "ms")


def median(times: list[tuple[float, float]], which: int) -> float:
    return sorted(each[which] for each in times)[len(times) // 2]


def timed(driver: object, site: Path, *, warm: bool) -> tuple[float, float]:
    """Returns the milliseconds from a key to the first painted result, and to the last change."""
    driver.get((site / "index.html").as_uri())
    driver.set_script_timeout(30)
    return tuple(driver.execute_async_script(MEASURE, warm))


MEASURE = """
const [warm, done] = arguments;
const query = document.getElementById("query");
const hits = document.getElementById("hits");
const count = document.getElementById("count");
const complete = () => /found$/.test(count.textContent);
const painted = () => new Promise((go) => requestAnimationFrame(() => setTimeout(go)));
const type = (text) => {
  query.value = text;
  query.dispatchEvent(new InputEvent("input", {bubbles: true}));
};
const until = async (test) => { while (!test()) await painted(); return performance.now(); };
(async () => {
  if (warm) { type("zz"); await until(() => /found$|Nothing/.test(count.textContent)); type(""); }
  await painted();
  const begin = performance.now();
  type("ink");
  const first = await until(() => hits.children.length > 0);
  const last = await until(complete);
  done([first - begin, last - begin]);
})();
"""


if __name__ == "__main__":
    main()
