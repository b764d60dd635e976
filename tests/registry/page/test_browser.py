"""The site in headless Chromium: search, filters, keyboard, no scripts, no foreign request."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from refiners.catalog import search as search_entries
from refiners.catalog import shipped

from .conftest import PAGES, complete, go

pytestmark = pytest.mark.browser

KEYS = {"down": "\ue015", "up": "\ue013", "enter": "\ue007", "escape": "\ue00c", "tab": "\ue004"}


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


def test_a_search_has_the_results_of_the_shell(driver: Any, shipped_site: Path):
    go(driver, shipped_site, "index.html")
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


def test_filters_combine_and_the_address_has_them(driver: Any, shipped_site: Path):
    go(driver, shipped_site, "index.html")
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


def test_everything_works_by_keyboard(driver: Any, shipped_site: Path):
    go(driver, shipped_site, "index.html")
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


def test_nothing_is_requested_from_elsewhere(driver: Any, shipped_site: Path):
    for page in PAGES:
        go(driver, shipped_site, page)
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = {
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }
    assert len(urls) > len(PAGES)
    assert {url for url in urls if not url.startswith(f"{shipped_site.as_uri()}/")} == set()
    assert driver.get_log("browser") == []


def test_pages_are_read_without_scripts(driver: Any, shipped_site: Path):
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    go(driver, shipped_site, "index.html")
    assert not driver.find_element("id", "search").is_displayed()
    assert driver.find_element("css selector", "noscript .note").is_displayed()
    driver.find_element("css selector", '#browse a[href="list/kind-control.html"]').click()
    assert driver.find_element("tag name", "h1").text == "Kind: control"
    driver.find_element("link text", "Next").click()
    driver.find_element("css selector", ".card a").click()
    assert driver.find_element("id", "use").is_displayed()
    driver.find_element("link text", "Capabilities").click()
    assert driver.find_element("tag name", "table").is_displayed()


def test_a_missing_script_is_told(driver: Any, shipped_site: Path, tmp_path: Path):
    broken = shutil.copytree(shipped_site, tmp_path / "site")
    (broken / "data/1.js").unlink()
    driver.get(f"{broken.as_uri()}/index.html?q=e")
    text = driver.execute_async_script(
        "const done = arguments[0];"
        "setTimeout(() => done(document.getElementById('count').textContent), 500)"
    )
    assert "a part of the index could not be read" in text
