"""The origins of models and adapters for recipes: canonical names, versions, hashes of files.

A model or an adapter keeps one of these callables; hashes are looked up when a recipe is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Final, TypeVar

from refiners.choose.variant import advice_for, made_from
from refiners.host.stamp import Stamp
from refiners.hub.client import Hub
from refiners.hub.receipts import Receipts, pinned
from refiners.installed.inventory import Installed
from refiners.manifest.address import PREFIX
from refiners.manifest.folder_layout import TOP
from refiners.manifest.pattern import LOCAL, UNKNOWN
from refiners.manifest.schema import AdapterSpec, ModelSpec, WeightsFile
from refiners.sources.companion import LABEL
from refiners.sources.family import top_of
from refiners.sources.repository import RepositoryModel
from refiners.sources.user_file import WithFile

if TYPE_CHECKING:
    from refiners_core import Adapter, Model
    from refiners_core.origin import Origin, OriginOf

T = TypeVar("T")

LOCAL_MODEL: Final = f"{LOCAL}:"
"""The beginning of the id of a model without a name: `file:` and the name of its file or folder."""
_TEXTS: Final = (".json", ".txt", ".jinja")


@dataclass(frozen=True)
class NamedModel:
    """The origin of a model from a package or a repository."""

    model: Installed[ModelSpec]

    def __call__(self, model: Model) -> Origin:
        """Returns the name, the version and the hashes of all files."""
        from refiners_core.origin import Origin

        files = hashes(self.model.spec.weights)
        if isinstance(self.model, RepositoryModel):
            return Origin(address_of(self.model.spec.weights), files=files)
        return Origin(self.model.id, self.model.version, files)


@dataclass(frozen=True)
class LocalModel:
    """The origin of a model from a path: the names of the files that it was read from."""

    files: Mapping[str, StampedFile]
    name: str

    @classmethod
    def of(cls, path: Path, dtype: str | None) -> LocalModel:
        """Returns the origin of a model at a path, before it is read.

        Args:
            path: The folder of a model, or a file.
            dtype: The preferred precision of the files of a folder.
        """
        names = _chosen(path, dtype) if path.is_dir() else [path]
        root = path if path.is_dir() else path.parent
        files = {file.relative_to(root).as_posix(): StampedFile.of(file) for file in names}
        return cls(files, path.resolve().name)

    def __call__(self, model: Model) -> Origin:
        """Returns the name of the file or folder and the hashes; the first call computes them."""
        from refiners_core.origin import Origin

        receipts = Hub.from_environment(offline=True).receipts
        files = {name: file.sha256(receipts) for name, file in self.files.items()}
        return Origin(f"{LOCAL_MODEL}{self.name}", files=files)


@dataclass(frozen=True)
class NamedAdapter:
    """The origin of an adapter from a package, with the user's file and options."""

    adapter: Installed[AdapterSpec]
    options: Mapping[str, Any]
    local: Mapping[str, StampedFile]
    """The user's files, by their names among the weights."""

    @classmethod
    def of(cls, adapter: Installed[AdapterSpec], options: Mapping[str, Any]) -> NamedAdapter:
        """Returns the origin of an adapter, before its local files are read."""
        weights = adapter.spec.weights.items()
        local = {
            name: StampedFile.of(file.local_path) for name, file in weights if file.scheme == LOCAL
        }
        return cls(adapter, dict(options), local)

    def __call__(self, adapter: Adapter) -> Origin:
        """Returns the name, the version and the hashes of the files of the bound variant."""
        from refiners_core.origin import Origin

        plugin, label = self.adapter, adapter.source.variant if adapter.source else None
        variant = next((item for item in plugin.spec.variant if item.label == label), None)
        roles = variant.files if variant is not None else {}
        receipts = Hub.from_environment(offline=True).receipts
        files = {
            role: self.local[name].sha256(receipts)
            if name in self.local
            else hash_of(plugin.spec.weights[name], receipts)
            for role, name in roles.items()
        }
        given = plugin.given if isinstance(plugin, WithFile) else ""
        if given.startswith(PREFIX):
            given = address_of({LABEL: plugin.spec.weights[LABEL]})
        elif given:
            given = PurePath(given).name
        id = f"{plugin.dist}:{plugin.name}"
        return Origin(id, plugin.version, files, given, self.options)


@dataclass(frozen=True)
class StampedFile:
    """A file of this machine as it was when it was loaded."""

    path: Path
    stamp: Stamp | None = field(repr=False)

    @classmethod
    def of(cls, path: Path) -> StampedFile:
        """Returns a file with its current stamp."""
        return cls(path.absolute(), Stamp.of(path))

    def sha256(self, receipts: Receipts) -> str:
        """Returns the hash of the file; empty if it changed since, or cannot be read."""
        try:
            digest = receipts.hash_of(self.path)
        except OSError:
            return ""
        return digest if Stamp.of(self.path) == self.stamp else ""


def originating(model: T, origin: OriginOf) -> T:
    """Sets the origin of a model and returns it; a part of a model has none."""
    from refiners_core import Model

    if isinstance(model, Model):
        model.origin = origin
    return model


def introduce(adapter: Adapter, plugin: Installed[AdapterSpec], options: Mapping[str, Any]) -> None:
    """Sets the package and the origin of a new adapter and, if all variants agree, its advice.

    Args:
        adapter: The adapter, which is not bound to a variant yet.
        plugin: Its package.
        options: The options with which the caller loaded it.
    """
    made_from[adapter] = plugin
    adapter.origin = NamedAdapter.of(plugin, options)
    advice = {advice_for(plugin.spec, variant) for variant in plugin.spec.variant}
    if len(advice) == 1 and (common := advice.pop()) is not None:
        adapter.advice = common


def hashes(files: Mapping[str, WeightsFile]) -> dict[str, str]:
    """Returns the pinned or resolved sha256 of each file; empty where it is not known."""
    receipts = Hub.from_environment(offline=True).receipts
    return {name: hash_of(file, receipts) for name, file in files.items()}


def hash_of(file: WeightsFile, receipts: Receipts) -> str:
    """Returns the sha256 of a file in a package or on the Hub; empty if it is not known."""
    known = file.sha256
    if known == UNKNOWN:
        known = pinned(file, receipts.resolution(file)).sha256
    return "" if known == UNKNOWN else known


def address_of(files: Mapping[str, WeightsFile]) -> str:
    """Returns the address of a file, or of the folder of a model, on the Hub with its commit."""
    first = next(iter(files.values()))
    commit = "" if first.revision == UNKNOWN else f"@{first.revision}"
    path = first.file or ""
    if len(files) > 1:
        top = top_of([file.file or "" for file in files.values()])
        path = "" if top in (None, TOP) else top
    return f"{first.source}{commit}{f'/{path}' if path else ''}"


def _chosen(root: Path, dtype: str | None) -> Iterable[Path]:
    """Yields the configurations and weights of the parts in a folder, as they are read."""
    from refiners_core.models.weight_files import choose_weights

    for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
        texts = [name for name in names if name.endswith(_TEXTS) and ".index." not in name]
        yield from (folder / name for name in (*texts, *choose_weights(names, dtype)))
