"""Reads and writes the fields of a model card: the table at the beginning of a README."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def card_fields(text: bytes) -> Mapping[str, Any]:
    """Returns the fields of a card, such as `base_model` and `instance_prompt`; none if damaged."""
    from huggingface_hub import ModelCard

    try:
        card = ModelCard(text.decode("utf-8", "replace"), ignore_metadata_errors=True)
        fields: Mapping[str, Any] = card.data.to_dict()
    except Exception:  # the YAML reader passes on many kinds of errors; a card only informs
        return {}
    return fields


def header_fields(header: str) -> dict[str, Any]:
    """Returns the fields in the header of a card, as its text has them.

    Args:
        header: The lines between the two rulers.

    Raises:
        ValueError: The header is not a table in YAML.
    """
    from huggingface_hub import ModelCard

    if not header.strip():
        return {}
    try:
        fields: dict[str, Any] = ModelCard(f"---\n{header}\n---\n").data.to_dict()
    except Exception as error:  # the YAML reader passes on many kinds of errors
        raise ValueError(str(error).partition("\n")[0]) from error
    return fields


def header_lines(field: str, value: Any) -> str:
    """Returns the lines of one field of a card, with a line break at the end."""
    from huggingface_hub.utils import yaml_dump

    return yaml_dump({field: value}, sort_keys=False)
