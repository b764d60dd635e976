"""Writes the sizes and sums of the trained weights into the manifests that name them."""

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
    """Gives a manifest in which every file of the playground has its present size and sum."""

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
