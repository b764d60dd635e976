"""Writes the sizes and checksums of the trained weights into the manifests."""

import hashlib
import re
from pathlib import Path

from run import WEIGHTS

PLUGINS = Path(__file__).parents[2]
ENTRY = re.compile(
    r'(source = "pkg:refiners_playground/weights/(?P<file>[^"]+)"\n(?:(?!sha256)\S.*\n)*)'
    r'sha256 = "\w*"\nsize = \d+\n'
)


def renewed(manifest: str) -> str:
    """Returns a manifest with the present sizes and checksums of the playground's files."""

    def entry(match: re.Match[str]) -> str:
        content = (WEIGHTS / match["file"]).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        return f'{match[1]}sha256 = "{digest}"\nsize = {len(content)}\n'

    return ENTRY.sub(entry, manifest)


if __name__ == "__main__":
    for path in sorted(PLUGINS.glob("*/src/*/*.toml")):
        before = path.read_text("utf-8")
        after = renewed(before)
        if after != before:
            path.write_text(after, "utf-8")
            print(f"renewed {path.relative_to(PLUGINS)}")
