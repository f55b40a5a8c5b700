"""Writes the tables of README.md that come from the registries; a test checks that they are current.

python scripts/readme_tables.py
"""

import pathlib

from mtl_jax.reporting.registry import methods_markdown

README = pathlib.Path(__file__).parent.parent / "README.md"
START, END = "<!-- balancing methods, from the registry -->", "<!-- end -->"


def updated(text: str) -> str:
    """The text with the table between its marks replaced."""
    before, rest = text.split(START, 1)
    _, after = rest.split(END, 1)
    return f"{before}{START}\n{methods_markdown()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(updated(README.read_text()))
