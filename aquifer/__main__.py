"""`python -m aquifer`, and the script `aquifer`."""

from __future__ import annotations


def main() -> None:
    from aquifer.cli import app

    app()


if __name__ == "__main__":
    main()
