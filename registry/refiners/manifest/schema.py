"""The schema of the manifests in a plugin: `adapter.toml` and `model.toml`.

A manifest is data in a package, read without running any code. Its keys are kebab-case. Keys that
begin with `x-` are reserved for users; every other unknown key is a fault. `json_schema` exports
the same rules for editors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from refiners.host.text import UNSEEN
from refiners.manifest.advice import AdviceTable
from refiners.manifest.file_layout import FileTable, UserFile
from refiners.manifest.term import END, Fact, Name

SCHEMA: Final = 1
"""The version of the schema that this release reads and writes."""
UNKNOWN: Final = "unknown"
"""A revision or a hash that is not pinned; the first fetch resolves it."""
LOCAL: Final = "file"
"""The scheme of a local file that a user names; manifests may not use it."""

_PART = rf"[^/\\:.{UNSEEN}][^/\\:{UNSEEN}]*"
REPOSITORY: Final = r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"
FILE_NAME: Final = rf"{_PART}(/{_PART})*"

Reference = Annotated[
    str,
    Meta(
        pattern=rf"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*{END}",
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
        pattern=rf"^({_SOURCE}){END}",
        description='"hf:organisation/repository", "pkg:package/path/to/file" or "scheme:address"',
    ),
]
LockedLocation = Annotated[
    str,
    Meta(
        pattern=rf"^({_SOURCE}|{LOCAL}:[^{UNSEEN}]+){END}",
        description='as a manifest has it, or "file:path" for a file of the user\'s',
    ),
]
FileName = Annotated[
    str,
    Meta(pattern=rf"^{FILE_NAME}{END}", description="a path inside the repository"),
]
Commit = Annotated[
    str,
    Meta(
        pattern=f"^([0-9a-f]{{40}}|{UNKNOWN}){END}",
        description='40 lower-case hex digits, or "unknown"',
    ),
]
Digest = Annotated[
    str,
    Meta(
        pattern=f"^([0-9a-f]{{64}}|{UNKNOWN}){END}",
        description='64 lower-case hex digits, or "unknown"',
    ),
]
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
    omit_defaults=True,  # so that keys added by later versions leave digests unchanged
):
    """A table of a manifest."""


class WeightsFile(_Table, frozen=True, kw_only=True):
    """One file of weights: its source, and the pins of its bytes."""

    source: Location
    file: FileName | None = None
    revision: Commit = UNKNOWN
    sha256: Digest = UNKNOWN
    size: Annotated[int, Meta(gt=0, description="a number of bytes")] | None = None
    license: str = ""
    format: Literal["safetensors", "json", "text", "pickle"] = "safetensors"
    shapes: dict[str, tuple[Dimension, ...]] = {}
    """The tensors that the file must have, checked against its header before the download."""

    @property
    def scheme(self) -> str:
        """`hf` for the Hub, `pkg` for a file in a package; hook modules may read other schemes."""
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
    """A slot that an adapter edits, and the stage of the edit."""

    slot: str
    stage: Literal["inputs", "branch", "output", "before", "after", "replace", "remove"]
    exclusive: bool = False
    """Whether the adapter excludes other adapters from the slot while it is worn."""


class Input(_Table, frozen=True, kw_only=True):
    """The condition that an adapter takes in a generation, and how to prepare it."""

    summary: str
    preprocessor: str = ""
    """The preprocessor that makes it from an image, such as `canny`."""
    range: tuple[float, float] | None = None
    """The lowest and the highest value."""
    channels: Annotated[int, Meta(gt=0, description="a number of channels")] | None = None


class External(_Table, frozen=True, kw_only=True):
    """A dependency that the user must supply, because its licence forbids fetching it."""

    summary: str
    license: str = ""
    home: str = ""
    """The page that offers it."""


class Variant(_Table, frozen=True, kw_only=True):
    """An adapter for one base: the facts it requires, the slots it edits, the files it needs."""

    base: Name | None = None
    """The base that it was trained for; None for any model with the slots."""
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """The dtype of its files; the variant in the dtype of the model takes precedence."""
    name: str = ""
    facts: dict[str, Fact] = {}
    settings: dict[str, Any] = {}
    targets: tuple[Target, ...] = ()
    weights: str | dict[str, str] = {}
    advice: AdviceTable | None = None
    """The advice for this variant; a key replaces that of the adapter."""

    @property
    def files(self) -> Mapping[str, str]:
        """The names of the files by role; a single file has the role `weights`."""
        return {"weights": self.weights} if isinstance(self.weights, str) else self.weights

    @property
    def label(self) -> str:
        """The name of the variant in messages."""
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
    """Other short names of the adapter; the name of an adapter takes precedence over an alias."""
    conflicts: tuple[str, ...] = ()
    """The names of adapters that cannot be worn together with it."""
    input: dict[Name, Input] = {}
    external: dict[Name, External] = {}
    file: UserFile | None = None
    """The file that the user names, with the role `weights`; None if all files are pinned."""
    advice: AdviceTable | None = None
    """The advice for all variants."""
    variant: Annotated[tuple[Variant, ...], Meta(min_length=1, description="at least one variant")]
    weights: dict[Name, WeightsFile] = {}

    @property
    def bases(self) -> tuple[str, ...]:
        """The bases of its variants, in order; `any` stands for every base."""
        return tuple(dict.fromkeys(variant.base or "any" for variant in self.variant))

    def advice_for(self, variant: Variant) -> AdviceTable | None:
        """Returns the advice for a variant: its own keys, then those for all; None without any."""
        if self.advice is None or variant.advice is None:
            return variant.advice or self.advice
        return variant.advice.over(self.advice)


class ModelSpec(_Table, frozen=True, kw_only=True):
    """One base model of a package; `weights` has its files by role."""

    factory: Reference
    summary: str
    core_api: str
    family: Name
    base: Name | None = None
    slots: tuple[str, ...] = ()
    """The names of its slots; those of its family if empty."""
    paper: str = ""
    license: str = ""
    aliases: tuple[Name, ...] = ()
    facts: dict[str, Fact] = {}
    settings: dict[str, Any] = {}
    demo: Reference | None = None
    file: FileTable | None = None
    """The layouts of a single file of the model, or of a part of it."""
    named_as: dict[str, tuple[str, ...]] = {}
    """The names of the base in metadata, configurations and cards of adapters: the patterns of
    values by key, such as `ss_base_model_version` or `base_model`."""
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
