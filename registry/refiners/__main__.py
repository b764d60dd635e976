"""`python -m refiners`: the command `refiners` where no script is on the path."""

from refiners.cli import main

if __name__ == "__main__":
    main(prog_name="refiners")
