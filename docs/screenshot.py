"""Writes `guide/catalog.png`, the picture of the catalog's page: run `python docs/screenshot.py`.

Needs Chromium and selenium; `make browser` installs the latter.
"""

import base64
import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from refiners.catalog import SHIPPED
from refiners.page import Notices, read_plugins, write_site
from selenium import webdriver

SIZE = (1000, 1100)
SHOTS = (
    ("index.html?q=edges&base=sdxl", "light"),
    ("plugin/refiners-controlnet/adapter-controlnet-canny.html", "dark"),
)


def main() -> None:
    """Draws two pages of the shipped catalog side by side."""
    sheet = Image.new("RGB", (SIZE[0] * len(SHOTS), SIZE[1]))
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        write_site(site, read_plugins(SHIPPED), Notices.of(SHIPPED))
        for number, (page, scheme) in enumerate(SHOTS):
            sheet.paste(shot(f"{site.as_uri()}/{page}", scheme), (number * SIZE[0], 0))
    small = sheet.resize((sheet.width * 3 // 5, sheet.height * 3 // 5), Image.Resampling.LANCZOS)
    colours = small.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    colours.save(Path(__file__).parent / "guide" / "catalog.png", optimize=True)


def shot(address: str, scheme: str) -> Image.Image:
    """Returns a picture of a page in light or dark colours."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        size = {"width": SIZE[0], "height": SIZE[1], "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        driver.get(address)
        driver.execute_async_script("setTimeout(arguments[0], 500)")
        data = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
    finally:
        driver.quit()
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


if __name__ == "__main__":
    main()
