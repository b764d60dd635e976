"""Who published a release: the repository and the workflow that an index attests (PEP 740).

An index with trusted publishing keeps, for each file, statements about its hash, signed for the
identity of the workflow that uploaded it. The identity says who built a file, not that the file
is good; that the identity changes between two releases is what users should notice.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from refiners.errors import IntegrityError
from refiners.host.text import UNSEEN

_TEXT: Final = rf"[^\s{UNSEEN}]{{1,200}}"
IDENTITY: Final = rf"^[a-z][a-z0-9-]*:{_TEXT}$(?!\n)"
"""The pattern of an identity, as locks have it."""


class Publisher(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The attested publisher of a release."""

    kind: Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9 -]{0,39}$(?!\n)")]
    """The service that vouches for the identity, such as `GitHub`."""
    repository: Annotated[str, Meta(pattern=rf"^{_TEXT}$(?!\n)")]
    """`organisation/name`; another kind of account where the service has no repositories."""
    workflow: Annotated[str, Meta(pattern=rf"^({_TEXT})?$(?!\n)")] = ""
    """The file of the workflow that uploaded the release."""
    verified: bool = False
    """Whether the signatures were verified; otherwise the index alone claims the identity."""

    @property
    def identity(self) -> str:
        """The identity in one word, such as `github:organisation/name@release.yml`."""
        kind = self.kind.lower().replace(" ", "-")
        workflow = f"@{self.workflow}" if self.workflow else ""
        return f"{kind}:{self.repository.lower()}{workflow}"

    def __str__(self) -> str:
        return f"{self.identity} ({'verified' if self.verified else 'claimed'})"


class _Envelope(msgspec.Struct, frozen=True):
    statement: str


class _Attestation(msgspec.Struct, frozen=True):
    envelope: _Envelope


class _Bundle(msgspec.Struct, frozen=True):
    publisher: dict[str, Any]
    attestations: tuple[_Attestation, ...]


class _Provenance(msgspec.Struct, frozen=True):
    attestation_bundles: tuple[_Bundle, ...]


class _Subject(msgspec.Struct, frozen=True):
    name: str
    digest: dict[str, str]


class _Statement(msgspec.Struct, frozen=True):
    subject: tuple[_Subject, ...]


def publisher_in(provenance: bytes, file: str, sha256: str) -> Publisher:
    """Returns the publisher that a provenance object names for a file; checks no signature.

    Args:
        provenance: The JSON that the index serves for the file.
        file: The name of the wheel.
        sha256: The hash of the wheel, which a statement must name.

    Raises:
        IntegrityError: The object is malformed, is about other bytes, or names several publishers.
    """
    try:
        bundles = msgspec.json.decode(provenance, type=_Provenance).attestation_bundles
        publishers = {
            publisher.identity: publisher
            for bundle in bundles
            if (file, sha256) in {*_subjects(bundle)}
            for publisher in (_publisher(bundle.publisher),)
        }
    except (ValueError, RecursionError) as error:  # those of msgspec and base64 are ValueErrors
        raise IntegrityError(
            f"the provenance of {file} cannot be read: {error}.",
            hint="Nothing was recorded. Fetch it again from the package index.",
        ) from error
    if not publishers:
        raise IntegrityError(
            f"the provenance of {file} has no statement about these bytes, "
            f"whose sha256 is {sha256}.",
            hint="Download the wheel from the index again: pip download --no-deps.",
        )
    if len(publishers) > 1:
        raise IntegrityError(
            f"the provenance of {file} names several publishers: {', '.join(publishers)}.",
            hint="Publish the file by one workflow.",
        )
    return next(iter(publishers.values()))


def _subjects(bundle: _Bundle) -> Iterator[tuple[str, str]]:
    for attestation in bundle.attestations:
        text = base64.b64decode(attestation.envelope.statement, validate=True)
        for subject in msgspec.json.decode(text, type=_Statement).subject:
            yield subject.name, subject.digest.get("sha256", "")


def _publisher(fields: dict[str, Any]) -> Publisher:
    account = fields.get("repository") or fields.get("project") or fields.get("email")
    workflow = fields.get("workflow") or fields.get("workflow_filepath") or ""
    return msgspec.convert(
        {"kind": fields.get("kind"), "repository": account, "workflow": workflow}, Publisher
    )
