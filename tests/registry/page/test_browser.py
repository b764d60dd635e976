"""The site in headless Chromium: search, filters, keyboard, sizes, contrast, no foreign request."""

import json
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from refiners.catalog import SHIPPED, shipped
from refiners.catalog import search as search_entries

from .conftest import HOSTILE, site_of

pytestmark = pytest.mark.browser

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
KEYS = {"down": "\ue015", "up": "\ue013", "enter": "\ue007", "escape": "\ue00c", "tab": "\ue004"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The site of the shipped catalog, with an index of several scripts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("refiners.page.shard.SHARD_BYTES", 4000)
        yield site_of(SHIPPED, tmp_path_factory.mktemp("browser") / "site")


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    from selenium import webdriver

    browser, service = shutil.which("chromium"), shutil.which("chromedriver")
    assert None not in (browser, service), "on Debian: apt install chromium chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(service))
    started.set_script_timeout(60)
    yield started
    started.quit()


@pytest.fixture(autouse=True)
def plain(driver: Any) -> None:
    """Puts the browser back to a wide, light window with scripts."""
    shown_as(driver)
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    driver.get("about:blank")
    driver.get_log("browser")
    driver.get_log("performance")


def shown_as(driver: Any, width: int = 1280, scheme: str = "light", motion: str = "") -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": motion or "no-preference"},
    ]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def go(driver: Any, site: Path, page: str) -> None:
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


def press(driver: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(driver).send_keys(*(KEYS.get(key, key) for key in keys)).perform()


def focused(driver: Any) -> str:
    return driver.execute_script(
        "const it = document.activeElement; return it.id || it.textContent.trim()"
    )


def hits(driver: Any) -> list[str]:
    return driver.execute_script(
        "return [...document.querySelectorAll('#hits h3')].map((it) => it.textContent)"
    )


def choose(driver: Any, name: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(driver.find_element("id", f"filter-{name}")).select_by_value(value)


def test_a_search_has_the_results_of_the_shell(driver: Any, site: Path):
    go(driver, site, "index.html")
    driver.find_element("id", "query").send_keys("follow edges")
    expected = {entry.name for entry in search_entries(("follow", "edges"), shipped())}
    assert complete(driver) == len(expected) > 3
    assert {*hits(driver)} <= expected
    assert not driver.find_element("id", "browse").is_displayed()
    driver.find_element("id", "query").clear()
    driver.find_element("id", "query").send_keys("lcm-lora")
    complete(driver)
    assert hits(driver)[0] == "lcm-lora"
    driver.find_element("id", "query").send_keys("zzz")
    assert complete(driver) == 0
    assert "Nothing matches" in driver.find_element("id", "count").text


def test_filters_combine_and_the_address_has_them(driver: Any, site: Path):
    go(driver, site, "index.html")
    choose(driver, "base", "sd15")
    choose(driver, "kind", "control")
    expected = [e for e in shipped() if e.does == "control" and {"sd15", "any"} & {*e.bases}]
    assert complete(driver) == len(expected) > 24
    more = driver.find_element("id", "more")
    more.click()
    assert len(hits(driver)) == min(48, len(expected))
    assert focused(driver) == hits(driver)[24]
    choose(driver, "licence", "*commercial")
    choose(driver, "status", "available")
    driver.find_element("id", "query").send_keys("canny")
    restricted = complete(driver)
    assert 0 < restricted < len(expected)
    address = driver.current_url
    for part in ("q=canny", "base=sd15", "kind=control", "licence=*commercial", "status=available"):
        assert part in address.replace("%2A", "*")
    before = hits(driver)
    driver.get("about:blank")
    driver.get(address)
    assert complete(driver) == restricted
    assert hits(driver) == before
    choose(driver, "status", "blocked")
    assert complete(driver) == 0
    driver.find_element("css selector", "button[type=reset]").click()
    driver.execute_async_script("setTimeout(arguments[0], 50)")
    assert "?" not in driver.current_url
    assert driver.find_element("id", "browse").is_displayed()


def test_everything_works_by_keyboard(driver: Any, site: Path):
    go(driver, site, "index.html")
    press(driver, "tab")
    assert focused(driver) == "Skip to content"
    press(driver, "/")
    assert focused(driver) == "query"
    press(driver, *"canny")
    complete(driver)
    names = hits(driver)
    press(driver, "down")
    assert focused(driver) == names[0]
    press(driver, "down", "down", "up")
    assert focused(driver) == names[1]
    press(driver, "up", "up")
    assert focused(driver) == "query"
    press(driver, "enter")
    assert focused(driver) == names[0]
    press(driver, "escape")
    assert focused(driver) == "query"
    press(driver, "down", "enter")
    assert driver.find_element("tag name", "h1").text == names[0]
    driver.back()
    assert complete(driver) == len(names)
    assert driver.find_element("id", "query").get_attribute("value") == "canny"


@pytest.mark.parametrize("page", [PAGES[0], PAGES[4], PAGES[6]])
def test_focus_is_visible_and_reaches_every_control(driver: Any, site: Path, page: str):
    go(driver, site, page)
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
def test_pages_fit_in_360_pixels(driver: Any, site: Path, page: str):
    shown_as(driver, 360)
    go(driver, site, page)
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
def test_axe_finds_no_barrier(driver: Any, site: Path, page: str, scheme: str):
    shown_as(driver, scheme=scheme)
    go(driver, site, page)
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


def test_colours_follow_the_system(driver: Any, site: Path):
    colours: list[str] = []
    for scheme in ("light", "dark"):
        shown_as(driver, scheme=scheme)
        go(driver, site, "index.html")
        colours.append(
            driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        )
    assert colours[0] != colours[1]
    shown_as(driver, motion="reduce")
    go(driver, site, "list/all.html")
    moving = "return getComputedStyle(document.querySelector('.card')).transitionDuration"
    assert driver.execute_script(moving) == "0s"


def test_nothing_is_requested_from_elsewhere(driver: Any, site: Path):
    for page in PAGES:
        go(driver, site, page)
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = {
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }
    assert len(urls) > len(PAGES)
    assert {url for url in urls if not url.startswith(f"{site.as_uri()}/")} == set()
    assert driver.get_log("browser") == []


def test_pages_are_read_without_scripts(driver: Any, site: Path):
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    go(driver, site, "index.html")
    assert not driver.find_element("id", "search").is_displayed()
    assert driver.find_element("css selector", "noscript .note").is_displayed()
    driver.find_element("css selector", '#browse a[href="list/kind-control.html"]').click()
    assert driver.find_element("tag name", "h1").text == "Kind: control"
    driver.find_element("link text", "Next").click()
    driver.find_element("css selector", ".card a").click()
    assert driver.find_element("id", "use").is_displayed()
    driver.find_element("link text", "Capabilities").click()
    assert driver.find_element("tag name", "table").is_displayed()


def test_a_missing_script_is_told(driver: Any, site: Path, tmp_path: Path):
    broken = shutil.copytree(site, tmp_path / "site")
    (broken / "data/1.js").unlink()
    driver.get(f"{broken.as_uri()}/index.html?q=e")
    text = driver.execute_async_script(
        "const done = arguments[0];"
        "setTimeout(() => done(document.getElementById('count').textContent), 500)"
    )
    assert "a part of the index could not be read" in text
