"""Extracts, merges, resizes and converts LoRAs; each function returns a `PlainLora` to be saved."""

from refiners_lora.rework.convert import convert, resize
from refiners_lora.rework.extract import extract
from refiners_lora.rework.merge import merge
from refiners_lora.rework.product import PlainLora

__all__ = ["PlainLora", "convert", "extract", "merge", "resize"]
