"""Writes the pictures of the examples that packages ship, beside their scripts.

python plugins/playground/picture/example.py [PACKAGE | EXAMPLE ...]
"""

import sys

import refiners
import torch


def main() -> None:
    """Runs the examples of the packages that are named, or of all, and writes their pictures."""
    torch.set_num_threads(1)
    for example in refiners.examples():
        if sys.argv[1:] and not {example.dist, example.name} & {*sys.argv[1:]}:
            continue
        sheet = refiners.run_example(example).sheet()
        if sheet is not None:
            path = example.path.with_suffix(".png")
            sheet.quantize(128).save(path, optimize=True)
            print(f"{path.stat().st_size:6} {example.id}", flush=True)


if __name__ == "__main__":
    main()
