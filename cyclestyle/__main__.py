"""`python -m cyclestyle` is the same as `cyclestyle`."""

from cyclestyle.cli import console

if __name__ == "__main__":
    console()
