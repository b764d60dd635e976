"""Quotes the words of a command, so that it can be copied to a shell."""

from __future__ import annotations

import os
import shlex
import subprocess


def quoted(*words: object) -> str:
    """Quotes words for a shell and joins them by blanks.

    Args:
        words: Paths, names, or parts of a command.

    Example:
        >>> quoted("rm", "-r", "my models/style.safetensors")
        "rm -r 'my models/style.safetensors'"
    """
    texts = [str(word) for word in words]
    return subprocess.list2cmdline(texts) if os.name == "nt" else shlex.join(texts)
