"""Writes words into a command that can be copied to a shell."""

from __future__ import annotations

import os
import shlex
import subprocess


def quoted(*words: object) -> str:
    """Returns words as one shell reads them back, joined by blanks.

    Args:
        words: Paths, names, or parts of a command.

    Example:
        >>> quoted("rm", "-r", "my models/style.safetensors")
        "rm -r 'my models/style.safetensors'"
    """
    texts = [str(word) for word in words]
    return subprocess.list2cmdline(texts) if os.name == "nt" else shlex.join(texts)
