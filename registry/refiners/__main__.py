"""Runs the command `refiners` as `python -m refiners`, where its script is not on the path."""

from refiners.cli import main

if __name__ == "__main__":
    main(prog_name="refiners")
