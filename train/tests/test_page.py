"""The guide's table of keys has those of the schema."""

import re
from pathlib import Path

import msgspec
from msgspec.structs import fields
from refiners_train.config.schema import Config

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "training.md"


def test_every_key_of_a_training_file_is_in_the_guide():
    section = PAGE.read_text().partition("\n## The file\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    told = {key for cell in rows for key in re.findall(r"`([^`]+)`", cell)}
    keys = set()
    for table in fields(Config):
        kind = table.type
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            keys |= {f"{table.encode_name}.{key.encode_name}" for key in fields(kind)}
        else:
            keys.add(table.encode_name)
    assert told == keys
