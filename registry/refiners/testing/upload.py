"""Accepts uploads to a loopback Hub as huggingface_hub's client sends them: `hf upload`."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from refiners.testing.repository import Repository

_CARD: Final = "README.md"
_MAIN: Final = "main"


class Published(Protocol):
    """The repositories of a Hub."""

    repositories: dict[str, Repository]
    history: dict[tuple[str, str], Repository]

    def publish(
        self,
        name: str,
        files: Mapping[str, bytes],
        license: str = "",
        tags: Sequence[str] = (),
        license_name: str = "",
    ) -> Repository:
        """Serves files as a repository."""
        ...


def accept(hub: Published, path: str, body: bytes, url: str) -> object | None:
    """Answers a request of the client's upload.

    All files are sent in the commit itself; the client's protocols for large files are not spoken.

    Args:
        hub: The repositories, one of which a commit changes.
        path: The path of the request, without the first slash.
        body: Its body.
        url: The address of the Hub.

    Returns:
        The answer as JSON; None for requests that are not part of an upload.
    """
    if path == "api/repos/create":
        wanted = json.loads(body)
        name = f"{wanted['organization']}/{wanted['name']}"
        if name not in hub.repositories:
            hub.publish(name, {})
        return {"url": f"{url}/{name}", "id": name}
    if path == "api/validate-yaml":
        return {"errors": [], "warnings": []}
    name, _, action = path.removeprefix("api/models/").rpartition("/preupload/")
    if name and action == _MAIN:
        files = json.loads(body)["files"]
        return {"files": [_mode(file["path"]) for file in files]}
    name, _, action = path.removeprefix("api/models/").rpartition("/commit/")
    if name and action == _MAIN and name in hub.repositories:
        before = hub.repositories[name]
        hub.history[name, before.commit] = before
        files = {**before.files, **dict(_sent(body))}
        card = _card(files.get(_CARD, b"").decode())
        commit = hub.publish(name, files, **card).commit
        return {"success": True, "commitOid": commit, "commitUrl": f"{url}/{name}/commit/{commit}"}
    return None


def _mode(path: str) -> dict[str, object]:
    return {"path": path, "uploadMode": "regular", "shouldIgnore": False, "oid": None}


def _sent(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yields path and contents of each file of a commit, a line of JSON each."""
    for line in body.splitlines():
        entry = json.loads(line)
        if entry["key"] == "file":
            yield entry["value"]["path"], base64.b64decode(entry["value"]["content"])


def _card(text: str) -> dict[str, Any]:
    """Returns the licence and the tags that the Hub takes from the head of a card."""
    from huggingface_hub import RepoCard

    if not text:
        return {}
    facts: dict[str, Any] = RepoCard(text, ignore_metadata_errors=True).data.to_dict()
    bases = facts.get("base_model") or []
    relation = facts.get("base_model_relation", "adapter")
    named = [bases] if isinstance(bases, str) else bases
    return {
        "license": facts.get("license") or "",
        "tags": (
            *(facts.get("tags") or ()),
            *(f"base_model:{relation}:{base}" for base in named),
        ),
        "license_name": facts.get("license_name") or "",
    }
