"""What a plugin says about itself: `adapter.toml` and `model.toml`, read without running anything.

A manifest is data in a package. Its keys are kebab-case, `x-` keys are everybody's own, every other
unknown key is a fault. `json_schema` gives the same rules to editors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from refiners.host.text import UNSEEN

SCHEMA: Final = 1
"""The schema that this version reads and writes."""
UNKNOWN: Final = "unknown"
"""A revision or a hash that nobody has published; the first fetch resolves it."""
LOCAL: Final = "file"
"""The scheme of a file that a user names on this machine; no manifest may."""

# the end of the text in Python and in JSON Schema alike; a bare "$" would let a newline through
_END = r"$(?!\n)"
_NAME = r"[a-z0-9]+(-[a-z0-9]+)*"
_PART = rf"[^/\\:.{UNSEEN}][^/\\:{UNSEEN}]*"
REPOSITORY: Final = r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"
FILE_NAME: Final = rf"{_PART}(/{_PART})*"

Name = Annotated[
    str, Meta(pattern=f"^{_NAME}{_END}", description="lower-case words joined by hyphens")
]
Reference = Annotated[
    str,
    Meta(
        pattern=rf"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*{_END}",
        description='"package.module:attribute"',
    ),
]
_SOURCE = (
    rf"hf:{REPOSITORY}|pkg:[A-Za-z_][A-Za-z0-9_]*(/{_PART})+|"
    rf"(?!hf:|pkg:|{LOCAL}:|https?:)[a-z][a-z0-9+.-]*:[^\s{UNSEEN}]+"
)
Location = Annotated[
    str,
    Meta(
        pattern=rf"^({_SOURCE}){_END}",
        description='"hf:organisation/repository", "pkg:package/path/to/file" or "scheme:address"',
    ),
]
LockedLocation = Annotated[
    str,
    Meta(
        pattern=rf"^({_SOURCE}|{LOCAL}:[^{UNSEEN}]+){_END}",
        description='as a manifest has it, or "file:path" for a file of the user\'s',
    ),
]
FileName = Annotated[
    str,
    Meta(pattern=rf"^{FILE_NAME}{_END}", description="a path inside the repository"),
]
Commit = Annotated[
    str,
    Meta(
        pattern=f"^([0-9a-f]{{40}}|{UNKNOWN}){_END}",
        description='40 lower-case hex digits, or "unknown"',
    ),
]
Digest = Annotated[
    str,
    Meta(
        pattern=f"^([0-9a-f]{{64}}|{UNKNOWN}){_END}",
        description='64 lower-case hex digits, or "unknown"',
    ),
]
Fact = str | int | float | bool
Dimension = Annotated[
    int | str,
    Meta(description='a number, the name of a fact of the model, or "*" for any'),
]


class _Table(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename="kebab",
    kw_only=True,
    omit_defaults=True,  # so that a key that a later version adds leaves digests as they are
):
    """A table of a manifest."""


class WeightsFile(_Table, frozen=True, kw_only=True):
    """One file of weights: where it comes from and which bytes it is."""

    source: Location
    file: FileName | None = None
    revision: Commit = UNKNOWN
    sha256: Digest = UNKNOWN
    size: Annotated[int, Meta(gt=0, description="a number of bytes")] | None = None
    license: str = ""
    format: Literal["safetensors", "json", "text", "pickle"] = "safetensors"
    shapes: dict[str, tuple[Dimension, ...]] = {}
    """Tensors that the file must have, read off its header before it is downloaded."""

    @property
    def scheme(self) -> str:
        """`hf` for the Hub, `pkg` for a file in a package; hook modules may read others."""
        return self.source.partition(":")[0]

    @property
    def address(self) -> str:
        """The repository on the Hub, or the package and the path in it."""
        return self.source.partition(":")[2]

    @property
    def organisation(self) -> str:
        """The organisation that publishes a file whose scheme is `hf`."""
        return self.address.partition("/")[0]

    @property
    def package_path(self) -> tuple[str, str]:
        """The package, and the path in it, of a file whose scheme is `pkg`."""
        package, _, path = self.address.partition("/")
        return package, path

    @property
    def local_path(self) -> Path:
        """The path of a file whose scheme is `file`."""
        return Path(self.address).expanduser()

    def __str__(self) -> str:
        if self.scheme != "hf":
            return self.source
        return f"{self.source}@{self.revision[:8]}/{self.file}"


class Target(_Table, frozen=True, kw_only=True):
    """A place that an adapter edits, and how."""

    slot: str
    stage: Literal["inputs", "branch", "output", "before", "after", "replace", "remove"]
    exclusive: bool = False
    """Whether no other adapter may edit this slot while this one is worn."""


class Input(_Table, frozen=True, kw_only=True):
    """What an adapter is told in a generation, and how that is to be prepared."""

    summary: str
    preprocessor: str = ""
    """What makes it from a picture, such as `canny`."""
    range: tuple[float, float] | None = None
    """The values that it takes, from lowest to highest."""
    channels: Annotated[int, Meta(gt=0, description="a number of channels")] | None = None


class External(_Table, frozen=True, kw_only=True):
    """Something that the user must supply, because its licence forbids to fetch it."""

    summary: str
    license: str = ""
    home: str = ""
    """Where to get it."""


class UserFile(_Table, frozen=True, kw_only=True):
    """The file that an adapter reads and its user names: a path, or a file of a Hub repository."""

    summary: str
    """What the file is, such as `a LoRA in any of the layouts that trainers write`."""


class Variant(_Table, frozen=True, kw_only=True):
    """What an adapter is on one base: facts that must hold, places it edits, files it needs."""

    base: Name | None = None
    """The base whose weights it was trained with; None for any that has the slots."""
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """What its files hold; the variant in the dtype of the model goes first."""
    name: str = ""
    facts: dict[str, Fact] = {}
    settings: dict[str, Any] = {}
    targets: tuple[Target, ...] = ()
    weights: str | dict[str, str] = {}

    @property
    def files(self) -> Mapping[str, str]:
        """The weights by the role that they have for the adapter; a single one is `weights`."""
        return {"weights": self.weights} if isinstance(self.weights, str) else self.weights

    @property
    def label(self) -> str:
        """How messages call it."""
        single = self.weights if isinstance(self.weights, str) else ""
        return self.name or single or self.base or "any base"


class AdapterSpec(_Table, frozen=True, kw_only=True):
    """One adapter of a package."""

    factory: Reference
    summary: str
    core_api: str
    paper: str = ""
    kind: str = ""
    license: str = ""
    aliases: tuple[Name, ...] = ()
    """Other short names that lead to it, where no adapter has them as its own."""
    conflicts: tuple[str, ...] = ()
    """Names of adapters that cannot be worn beside it."""
    input: dict[Name, Input] = {}
    external: dict[Name, External] = {}
    file: UserFile | None = None
    """The file that its user names; it takes the role `weights`. None where the manifest does."""
    variant: Annotated[tuple[Variant, ...], Meta(min_length=1, description="at least one variant")]
    weights: dict[Name, WeightsFile] = {}

    @property
    def bases(self) -> tuple[str, ...]:
        """The bases that it has variants for, in order; `any` stands for every base."""
        return tuple(dict.fromkeys(variant.base or "any" for variant in self.variant))


class ModelSpec(_Table, frozen=True, kw_only=True):
    """One base model of a package; every file under `weights` belongs to it, by role."""

    factory: Reference
    summary: str
    core_api: str
    family: Name
    base: Name | None = None
    slots: tuple[str, ...] = ()
    """The stable names of places that it publishes; those of its family if there are none."""
    paper: str = ""
    license: str = ""
    aliases: tuple[Name, ...] = ()
    facts: dict[str, Fact] = {}
    settings: dict[str, Any] = {}
    demo: Reference | None = None
    weights: dict[Name, WeightsFile] = {}


class AdapterManifest(_Table, frozen=True, kw_only=True):
    """An `adapter.toml`."""

    schema: Annotated[int, Meta(ge=SCHEMA, le=SCHEMA, description=f"{SCHEMA}")]
    adapter: Annotated[dict[Name, AdapterSpec], Meta(min_length=1, description="named tables")]


class ModelManifest(_Table, frozen=True, kw_only=True):
    """A `model.toml`."""

    schema: Annotated[int, Meta(ge=SCHEMA, le=SCHEMA, description=f"{SCHEMA}")]
    model: Annotated[dict[Name, ModelSpec], Meta(min_length=1, description="named tables")]


def json_schema(kind: type[AdapterManifest] | type[ModelManifest]) -> dict[str, Any]:
    """Returns the JSON Schema of a manifest, for editors."""
    return msgspec.json.schema(kind)
