"""The schema of the manifests in a plugin: `adapter.toml`, `model.toml`, `preprocessor.toml`.

A manifest is data in a package, read without running any code. Its keys are kebab-case. Keys that
begin with `x-` are reserved for users; every other unknown key is a fault. `json_schema` exports
the same rules for editors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from refiners.manifest.advice import AdviceTable
from refiners.manifest.file_layout import FileTable, UserFile
from refiners.manifest.folder_layout import FolderTable
from refiners.manifest.license_terms import terms_of
from refiners.manifest.pattern import (
    UNKNOWN,
    Commit,
    Digest,
    FileName,
    Location,
    OptionalName,
    Reference,
)
from refiners.manifest.term import Fact, Name

SCHEMA: Final = 1
"""The version of the schema that this release reads and writes."""

KindName = Literal["adapter", "model", "preprocessor"]
"""The kinds of plugins; each has a manifest, an entry-point group and a list of releases."""
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
    commercial: bool | None = None
    """Whether the licence permits commercial use; None reads it off its name."""
    format: Literal["safetensors", "json", "text", "pickle"] = "safetensors"
    shapes: dict[str, tuple[Dimension, ...]] = {}
    """The tensors that the file must have, checked against its header before the download."""

    @property
    def terms(self) -> str:
        """`non-commercial` if the licence forbids commercial use; empty otherwise."""
        return terms_of(self.license, self.commercial)

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
        if self.scheme == "hf":
            return f"{self.source}@{self.revision[:8]}/{self.file}"
        revision = "" if self.revision == UNKNOWN else f"@{self.revision[:8]}"
        return f"{self.source}{revision}{f'/{self.file}' if self.file else ''}"


class Target(_Table, frozen=True, kw_only=True):
    """A slot that an adapter edits, and the stage of the edit."""

    slot: str
    stage: Literal["inputs", "branch", "output", "around", "before", "after", "replace", "remove"]
    exclusive: bool = False
    """Whether the adapter excludes other adapters from the slot while it is worn."""


class Input(_Table, frozen=True, kw_only=True):
    """The condition that an adapter takes in a generation, and how to prepare it."""

    summary: str
    preprocessor: OptionalName = ""
    """The name of the preprocessor that makes it from an image, such as `canny`."""
    range: tuple[float, float] | None = None
    """The lowest and the highest value."""
    channels: Annotated[int, Meta(gt=0, description="a number of channels")] | None = None


class External(_Table, frozen=True, kw_only=True):
    """A dependency that the user must supply, because its licence forbids fetching it."""

    summary: str
    license: str = ""
    commercial: bool | None = None
    """Whether the licence permits commercial use; None reads it off its name."""
    home: str = ""
    """The page that offers it."""

    @property
    def terms(self) -> str:
        """`non-commercial` if the licence forbids commercial use; empty otherwise."""
        return terms_of(self.license, self.commercial)


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


class Spec(_Table, frozen=True, kw_only=True):
    """The keys that the tables of all kinds of plugins have."""

    factory: Reference
    summary: str
    core_api: str
    paper: str = ""
    license: str = ""
    aliases: tuple[Name, ...] = ()
    """Other short names; the name of a plugin takes precedence over an alias."""
    weights: dict[Name, WeightsFile] = {}


class AdapterSpec(Spec, frozen=True, kw_only=True):
    """One adapter of a package."""

    kind: str = ""
    conflicts: tuple[str, ...] = ()
    """The names of adapters that cannot be worn together with it."""
    input: dict[Name, Input] = {}
    external: dict[Name, External] = {}
    file: UserFile | None = None
    """The file that the user names, with the role `weights`; None if all files are pinned."""
    advice: AdviceTable | None = None
    """The advice for all variants."""
    variant: Annotated[tuple[Variant, ...], Meta(min_length=1, description="at least one variant")]

    @property
    def bases(self) -> tuple[str, ...]:
        """The bases of its variants, in order; `any` stands for every base."""
        return tuple(dict.fromkeys(variant.base or "any" for variant in self.variant))

    def advice_for(self, variant: Variant) -> AdviceTable | None:
        """Returns the advice for a variant: its own keys, then those for all; None without any."""
        if self.advice is None or variant.advice is None:
            return variant.advice or self.advice
        return variant.advice.over(self.advice)


class ModelSpec(Spec, frozen=True, kw_only=True):
    """One base model of a package; `weights` has its files by role."""

    family: Name
    base: Name | None = None
    slots: tuple[str, ...] = ()
    """The names of its slots; those of its family if empty."""
    facts: dict[str, Fact] = {}
    settings: dict[str, Any] = {}
    demo: Reference | None = None
    file: FileTable | None = None
    """The layouts of a single file of the model, or of a part of it."""
    named_as: dict[str, tuple[str, ...]] = {}
    """The names of the base in metadata, configurations and cards of adapters: the patterns of
    values by key, such as `ss_base_model_version` or `base_model`."""


class PreprocessorSpec(Spec, frozen=True, kw_only=True):
    """One preprocessor of a package; `weights` has its files by role.

    Without weights, the factory is the function itself. With weights, it is called with
    `weights=`, a function that fetches them and returns their `Source`, and builds the function.
    """


class FamilySpec(Spec, frozen=True, kw_only=True):
    """One family of models that load without a name; its factory is called with a path."""

    checker: Reference | None = None
    """A function of a folder that has only configurations yet; it raises a `ModelError`."""
    folder: FolderTable | None = None
    file: FileTable | None = None
    """The layouts of a single file of a whole model."""
    slots: tuple[str, ...] = ()
    """The names of the slots of its models."""


class Manifest(_Table, frozen=True, kw_only=True):
    """The manifest of one kind of plugins."""

    kind: ClassVar[KindName]
    spec: ClassVar[type[Spec]]
    """The type of its tables."""
    schema: Annotated[int, Meta(ge=SCHEMA, le=SCHEMA, description=f"{SCHEMA}")]

    @property
    def tables(self) -> Mapping[str, Any]:
        """Its tables by name."""
        return getattr(self, self.kind)


class AdapterManifest(Manifest, frozen=True, kw_only=True):
    """An `adapter.toml`."""

    kind: ClassVar[KindName] = "adapter"
    spec: ClassVar[type[Spec]] = AdapterSpec
    adapter: Annotated[dict[Name, AdapterSpec], Meta(min_length=1, description="named tables")]


class ModelManifest(Manifest, frozen=True, kw_only=True):
    """A `model.toml`."""

    kind: ClassVar[KindName] = "model"
    spec: ClassVar[type[Spec]] = ModelSpec
    model: dict[Name, ModelSpec] = {}
    family: dict[Name, FamilySpec] = {}


class PreprocessorManifest(Manifest, frozen=True, kw_only=True):
    """A `preprocessor.toml`."""

    kind: ClassVar[KindName] = "preprocessor"
    spec: ClassVar[type[Spec]] = PreprocessorSpec
    preprocessor: Annotated[
        dict[Name, PreprocessorSpec], Meta(min_length=1, description="named tables")
    ]


MANIFESTS: Final[Mapping[KindName, type[Manifest]]] = {
    manifest.kind: manifest for manifest in (AdapterManifest, ModelManifest, PreprocessorManifest)
}
"""The manifest of each kind of plugins."""


def kind_of(spec: Spec) -> KindName:
    """Returns the kind of plugin that a table describes."""
    return next(kind for kind, manifest in MANIFESTS.items() if isinstance(spec, manifest.spec))


def json_schema(kind: type[Manifest]) -> dict[str, Any]:
    """Returns the JSON Schema of a manifest, for editors."""
    return msgspec.json.schema(kind)
