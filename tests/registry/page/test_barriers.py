"""Pages in headless Chromium have no barriers: narrow windows, dark colours, focus, axe-core."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from .conftest import HOSTILE, PAGES, go, shown_as
from .test_browser import focused, hits, press

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("page", [PAGES[0], PAGES[4], PAGES[6]])
def test_focus_is_visible_and_reaches_every_control(driver: Any, shipped_site: Path, page: str):
    go(driver, shipped_site, page)
    controls = driver.execute_script(
        "const kinds = 'a[href], button, input, select, summary, [tabindex=\"0\"]';"
        "return [...document.querySelectorAll(kinds)].filter((it) => it.checkVisibility()).length"
    )
    for _ in range(min(controls, 40)):
        press(driver, "tab")
        outline = driver.execute_script(
            "const it = document.activeElement; const after = getComputedStyle(it, '::after');"
            "return [getComputedStyle(it), after].map((s) => s.outlineStyle + s.outlineWidth)"
        )
        assert "solid3px" in outline, focused(driver)


@pytest.mark.parametrize("page", PAGES)
def test_pages_fit_in_360_pixels(driver: Any, shipped_site: Path, page: str):
    shown_as(driver, 360)
    go(driver, shipped_site, page)
    width = driver.execute_script("return document.documentElement.scrollWidth")
    assert width <= 360


def test_hostile_pages_fit_and_run_nothing(driver: Any, hostile: Path):
    shown_as(driver, 360)
    for number in range(len(HOSTILE)):
        go(driver, hostile, f"plugin/refiners-bad-{number}/adapter-bad-{number}.html")
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 360
    go(driver, hostile, "index.html?q=bad")
    assert len(hits(driver)) == len(HOSTILE)
    kinds = [element.text for element in driver.find_elements("css selector", "#hits .kind")]
    assert HOSTILE[0] in kinds
    assert driver.get_log("browser") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_axe_finds_no_barrier(driver: Any, shipped_site: Path, page: str, scheme: str):
    shown_as(driver, scheme=scheme)
    go(driver, shipped_site, page)
    assert axe(driver) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier_on_pages_with_everything(driver: Any, hostile: Path, scheme: str):
    shown_as(driver, 360, scheme)
    for page in ("plugin/refiners-bad-0/adapter-bad-0.html", "matrix/matrix.html"):
        go(driver, hostile, page)
        assert axe(driver) == []


def axe(driver: Any) -> list[tuple[str, list[str]]]:
    """Returns the barriers that axe-core finds, with their places."""
    spec = find_spec("axe_playwright_python")
    assert spec is not None, "run make browser, which installs axe-core"
    assert spec.origin is not None
    driver.execute_script(Path(spec.origin).with_name("axe.min.js").read_text())
    barriers = driver.execute_async_script(
        "const done = arguments[0]; axe.run(document).then((r) => done(r.violations))"
    )
    return [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in barriers]


def test_colours_follow_the_system(driver: Any, shipped_site: Path):
    colours: list[str] = []
    for scheme in ("light", "dark"):
        shown_as(driver, scheme=scheme)
        go(driver, shipped_site, "index.html")
        colours.append(
            driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        )
    assert colours[0] != colours[1]
    shown_as(driver, motion="reduce")
    go(driver, shipped_site, "list/all.html")
    moving = "return getComputedStyle(document.querySelector('.card')).transitionDuration"
    assert driver.execute_script(moving) == "0s"
