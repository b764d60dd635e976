"""Reads the fields of a model card: the table at the beginning of a repository's README."""

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
