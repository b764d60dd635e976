"""Translates licences of manifests into the identifiers that the Hub knows."""

from __future__ import annotations

from typing import Final

_KNOWN: Final = frozenset(
    """
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m
    bigscience-bloom-rail-1.0 bigscience-openrail-m bsd bsd-2-clause bsd-3-clause
    bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0
    cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
    cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0
    epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl
    gpl gpl-2.0 gpl-3.0 grok2-community h-research intel-research isc lgpl lgpl-2.1 lgpl-3.0
    lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa
    odbl odc-by ofl-1.1 open-mdw openmdw-1.0 openrail openrail++ osl-3.0 pddl postgresql unknown
    unlicense wtfpl zlib
    """.split()  # noqa: SIM905
)
_SPDX_ENDINGS: Final = ("-only", "-or-later")


def hub_license(license: str) -> str | None:
    """Returns the identifier of a licence on the Hub; None if the Hub does not list it.

    Args:
        license: An SPDX identifier, or the identifier of the Hub, in any case.

    Example:
        >>> hub_license("Apache-2.0"), hub_license("GPL-3.0-or-later"), hub_license("Acme 1")
        ('apache-2.0', 'gpl-3.0', None)
    """
    name = license.strip().lower()
    for ending in _SPDX_ENDINGS:
        name = name.removesuffix(ending)
    return name if name in _KNOWN else None
