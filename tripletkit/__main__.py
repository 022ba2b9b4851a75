"""`python -m tripletkit` is the same as `tripletkit`."""

from tripletkit.cli.main import tripletkit

if __name__ == "__main__":
    tripletkit(prog_name="tripletkit")
