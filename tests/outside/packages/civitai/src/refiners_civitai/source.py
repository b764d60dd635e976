"""Fetches files of Civitai: `civitai:VERSION`, the number of a version of a model.

CIVITAI_ENDPOINT is the address of the site; CIVITAI_CACHE the folder of the fetched files.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from refiners_core.errors import WeightsError
from refiners_core.hookspecs import WeightRequest, hookimpl

SCHEME = "civitai:"
ENDPOINT = "https://civitai.com"


@hookimpl
def fetch_weights(event: WeightRequest) -> Path | None:
    """Returns a file whose SHA256 is the one that the site states; None for other schemes."""
    if not event.source.startswith(SCHEME):
        return None
    version = event.source.removeprefix(SCHEME)
    home = os.environ.get("CIVITAI_CACHE") or Path.home() / ".cache" / "civitai"
    path = Path(home) / version / event.file
    if path.exists():
        return path
    if event.offline:
        raise WeightsError(
            f"{event.source} {event.file} is not in {path.parent}, and the network is off limits.",
            hint="Go online once.",
        )
    site = os.environ.get("CIVITAI_ENDPOINT", ENDPOINT)
    file = _stated(site, version, event.file)
    data = _read(file["downloadUrl"])
    if hashlib.sha256(data).hexdigest() != file["hashes"]["SHA256"].lower():
        raise WeightsError(
            f"{site} sent {event.source} {event.file} with another SHA256 than it states.",
            hint="Try again later.",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _stated(site: str, version: str, name: str) -> dict[str, Any]:
    """Returns the site's entry of a file: its address and hashes."""
    files = json.loads(_read(f"{site}/api/v1/model-versions/{version}"))["files"]
    for file in files:
        if file["name"] == name:
            return file
    names = ", ".join(file["name"] for file in files)
    raise WeightsError(
        f"version {version} on {site} has no file {name}; it has {names}.",
        hint="Name one of these in the manifest.",
    )


def _read(address: str) -> bytes:
    with urlopen(address, timeout=10) as answer:
        return answer.read()
