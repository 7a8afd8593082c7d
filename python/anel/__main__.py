"""`python -m anel` is the command `anel`."""

from anel.cli import main

if __name__ == "__main__":
    main(prog_name="anel")
