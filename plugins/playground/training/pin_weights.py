"""Writes the hash and size of every file of the playground's weights into the manifests.

Run it after a training script has written new weights; the registry refuses any other bytes.
"""

import re
from hashlib import sha256
from pathlib import Path

PLUGINS = Path(__file__).resolve().parents[2]
PACKAGE = PLUGINS / "playground" / "src" / "refiners_playground"
ENTRY = re.compile(
    r'(source = "pkg:refiners_playground/(?P<path>[^"]+)"\n(?:format = .*\n)?)'
    r'sha256 = ".*"\nsize = .*\n'
)


def pinned(entry: re.Match[str]) -> str:
    """Returns the lines of a manifest that pin one file."""
    content = (PACKAGE / entry["path"]).read_bytes()
    return f'{entry[1]}sha256 = "{sha256(content).hexdigest()}"\nsize = {len(content)}\n'


if __name__ == "__main__":
    for manifest in PLUGINS.glob("*/src/*/*.toml"):
        manifest.write_text(ENTRY.sub(pinned, manifest.read_text()))
