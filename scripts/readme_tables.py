"""Writes the tables of README.md that come from the registries; a test checks that they are current.

python scripts/readme_tables.py
"""

import pathlib

from mtl_jax.reporting import registry

README = pathlib.Path(__file__).parent.parent / "README.md"
TABLES = {
    "balancing methods": registry.methods_markdown,
    "options of balancing": registry.options_markdown,
    "sharing architectures": registry.sharing_markdown,
    "encoders": registry.encoders_markdown,
    "kinds of tasks": registry.kinds_markdown,
}


def updated(text: str) -> str:
    """The text with the table after each ``<!-- NAME, from the registry -->`` replaced, up to ``<!-- end -->``."""
    for name, table in TABLES.items():
        start = f"<!-- {name}, from the registry -->"
        before, rest = text.split(start, 1)
        _, after = rest.split("<!-- end -->", 1)
        text = f"{before}{start}\n{table()}\n<!-- end -->{after}"
    return text


if __name__ == "__main__":
    README.write_text(updated(README.read_text()))
