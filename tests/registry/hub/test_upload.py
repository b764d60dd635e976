"""The loopback Hub accepts uploads of the real client, and keeps the commits before them."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from refiners.hub.client import Hub
from refiners.manifest.schema import WeightsFile
from refiners.testing import Fault, LoopbackHub, safetensors_of

from ..conftest import pin

DATA = safetensors_of({"weight": [1.0, 2.0]})
CARD = b"---\nlicense: mit\nbase_model: org/base\ntags: [refiners]\n---\n# Mine\n"


def upload(hub: LoopbackHub, file: str, data: bytes) -> str:
    api = HfApi(endpoint=hub.url, token="hf_loopback")
    name = api.create_repo("me/mine", exist_ok=True).repo_id
    return api.upload_file(path_or_fileobj=data, path_in_repo=file, repo_id=name).oid


def test_uploaded_files_are_served_at_their_commit(hub: LoopbackHub, tmp_path: Path):
    first = upload(hub, "a.safetensors", DATA)
    before = hub.repositories["me/mine"]
    second = upload(hub, "README.md", CARD)
    after = hub.repositories["me/mine"]
    assert (before.commit, after.commit) == (first, second)
    assert after.files == {"a.safetensors": DATA, "README.md": CARD}
    assert (after.license, after.tags) == ("mit", ("refiners", "base_model:adapter:org/base"))
    client = Hub.from_environment()
    assert client.fetch(pin(before, "a.safetensors")).read_bytes() == DATA
    newest = client.pin(WeightsFile(source="hf:me/mine", file="a.safetensors"))
    assert newest.revision == second
    assert client.contents("me/mine", first).files.keys() == {"a.safetensors"}


def test_an_upload_may_fail(hub: LoopbackHub):
    hub.fail("upload", Fault.UNAUTHORISED)
    with pytest.raises(HfHubHTTPError):
        upload(hub, "a.safetensors", DATA)
    assert hub.repositories == {}
