"""Reads the shapes of the tensors in a file, wherever it is, before it is fetched."""

from __future__ import annotations

from refiners.hub.client import Hub
from refiners.hub.tensor_header import Header, read_header
from refiners.installed.inventory import package_file
from refiners.manifest.pattern import LOCAL
from refiners.manifest.schema import WeightsFile


def header_of(file: WeightsFile, hub: Hub, *, dist: str | None = None) -> Header | None:
    """Returns the shapes of the tensors in a file without fetching it; None if they are unknown.

    Reads a file in a package or in the cache, and requests the first bytes of one on the Hub.

    Raises:
        NetworkError: The Hub does not answer, or does not have the file.
        IntegrityError: The file is not in the safetensors format.
    """
    if file.format != "safetensors":
        return None
    if file.scheme == "pkg":
        path = package_file(*file.package_path)
        return None if path is None else read_header(path, dist=dist)
    if file.scheme == LOCAL:
        return read_header(file.local_path)
    if file.scheme != "hf":
        return None
    path = hub.verified_file(file)
    return hub.header(file, dist=dist) if path is None else read_header(path, dist=dist)
