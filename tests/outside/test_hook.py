"""A package of hooks fetches weights from a site of its own, pinned by SHA256."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from .environment import ROOT, Environment

pytestmark = pytest.mark.slow
DATA = (
    ROOT / "plugins/playground/src/refiners_playground/weights/lora_ink.safetensors"
).read_bytes()
USE = """
import json, refiners

model = refiners.load_model("playground")
bare = model.generate("a heart", seed=3, steps=2, progress=False)
ink = refiners.load_adapter("civitai-ink", model)
drawn = model.generate("a heart", seed=3, steps=2, progress=False)
ink.eject()
print(json.dumps(bare.tobytes() != drawn.tobytes()))
"""


class Site:
    """The part of Civitai's interface that the package reads."""

    def __init__(self) -> None:
        self.data = DATA
        self.requests: list[str] = []

    def answer(self, path: str, address: str) -> bytes | None:
        self.requests.append(path)
        if path == "/api/v1/model-versions/128713":
            hashes = {"SHA256": hashlib.sha256(self.data).hexdigest().upper()}
            file = {"name": "ink.safetensors", "downloadUrl": f"{address}/download"}
            return json.dumps({"files": [{**file, "hashes": hashes}]}).encode()
        return self.data if path == "/download" else None


@contextmanager
def served(site: Site) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            data = site.answer(self.path, address)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield address
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("clean")
def test_a_source_of_another_package_pins_by_sha256(environment: Environment, tmp_path: Path):
    environment.install("refiners-civitai")
    site = Site()
    with served(site) as address:
        online = {
            "CIVITAI_ENDPOINT": address,
            "CIVITAI_CACHE": str(tmp_path / "civitai"),
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_OFFLINE": "0",
        }
        offline = {**online, "HF_HUB_OFFLINE": "1"}

        def refiners(*words: object, code: int | None = 0, **more: Any) -> str:
            done = environment.run("refiners", *words, folder=tmp_path, code=code, **more)
            return done.text

        info = refiners("info", "civitai-ink", variables=online)
        assert "civitai:128713/ink.safetensors" in info
        refused = refiners("fetch", "civitai-ink", variables=offline, code=None)
        assert "civitai:128713 ink.safetensors is not in" in refused
        assert "the network is off limits" in refused
        assert site.requests == []

        site.data = DATA[:-1] + bytes([DATA[-1] ^ 1])  # other bytes, which the site vouches for
        wrong = refiners("fetch", "civitai-ink", variables=online, code=4)
        assert "does not have the sha256 that refiners-civitai pins, b28002555e" in wrong
        (tmp_path / "civitai/128713/ink.safetensors").unlink()
        site.data = DATA
        assert environment.script(USE, variables=online) is True

        before = len(site.requests)
        assert environment.script(USE, variables=offline) is True
        refiners("lock", "playground", "civitai-ink", variables=offline)
        lock = (tmp_path / "refiners.lock").read_text()
        assert 'source = "civitai:128713"' in lock
        assert f'sha256 = "{hashlib.sha256(DATA).hexdigest()}"' in lock
        assert refiners("verify", "--lock", "refiners.lock", "--deep", variables=offline)
        assert refiners("sync", "--locked", "--offline", variables=offline)
        assert "yes" in refiners("info", "civitai-ink", variables=offline)
        assert len(site.requests) == before

        (tmp_path / "civitai/128713/ink.safetensors").write_bytes(DATA[:-4])
        damaged = refiners("verify", "--lock", "refiners.lock", variables=offline, code=None)
        assert "civitai-ink" in damaged
        (tmp_path / "civitai/128713/ink.safetensors").unlink()
    silent = refiners("fetch", "civitai-ink", variables=online, code=3)
    assert "could not be fetched by the hooks refiners-civitai:civitai: URLError" in silent
    environment.uninstall("refiners-civitai")
