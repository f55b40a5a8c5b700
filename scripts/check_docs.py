"""Runs the Python of README.md and of every page in docs/, and checks the commands and links that they have.

    python scripts/check_docs.py [PAGE ...]

The blocks of a page run one after the other in one namespace, in a scratch folder, with the package that is installed.
A comment ``<!-- setup`` holds lines that run too and are not shown; ``<!-- not run: why -->`` above a block has it
compiled only. A command's program, config and files must be there, and so must what a relative link names.
"""

import ast
import contextlib
import os
import pathlib
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
PIECES = re.compile(
    r"<!-- setup\n(?P<setup>.*?)-->|(?P<skip><!-- not run: [^>]*-->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```",
    re.DOTALL | re.MULTILINE,
)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
PROGRAM = re.compile(
    r"python3? -m ((?:experiments|scripts)[\w.]*)|python3? (scripts/[\w/]+\.py)|(?:^|\s)(scripts/\w+\.sh)"
)
CONFIG = re.compile(r"--config=([\w/]+\.py)")


class Piece(NamedTuple):
    """Code on a page: its language ("setup" runs unseen), text, line, and whether it is to run."""

    language: str
    code: str
    line: int
    runs: bool


def pieces(text: str) -> Iterator[Piece]:
    """All code of a page, in order."""
    for found in PIECES.finditer(text):
        hidden = found["setup"] is not None
        where = found.start("setup" if hidden else "code")
        yield Piece("setup" if hidden else found["language"], found["setup" if hidden else "code"],
                    text.count("\n", 0, where) + 1, not found["skip"])  # fmt: skip


def faults_of_commands(code: str) -> list[str]:
    """Programs, scripts and configs that a command names and that are not there."""
    said = []
    for module, *paths in PROGRAM.findall(code):
        path = ROOT / module.replace(".", "/")
        if module and not (path.with_suffix(".py").exists() or path.is_dir()):
            said.append(f"no program {module}")
        said += [f"no file {p}" for p in paths if p and not (ROOT / p).exists()]
    return said + [f"no config {p}" for p in CONFIG.findall(code) if not (ROOT / p).exists() and p.startswith("exp")]


def faults_of_links(page: pathlib.Path, text: str) -> list[str]:
    """Relative links of a page to what is not there."""
    targets = [t for t in LINK.findall(text) if not t.startswith(("http", "mailto:", "api/"))]
    return [f"no {t} to link to" for t in targets if not (page.parent / t).exists()]


def check(page: pathlib.Path) -> list[str]:
    """What is wrong with a page."""
    text, namespace = page.read_text(), {"__name__": "__main__"}
    said = [f"{page.name}: {fault}" for fault in faults_of_links(page, re.sub(r"```.*?```", "", text, flags=re.DOTALL))]
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        for piece in pieces(text):
            where = f"{page.name}, line {piece.line}"
            if piece.language == "bash":
                said += [f"{where}: {fault}" for fault in faults_of_commands(piece.code)]
            elif piece.language in ("python", "setup"):
                try:
                    shifted = ast.increment_lineno(ast.parse(piece.code), piece.line - 1)
                    code = compile(shifted, str(page), "exec")
                    if piece.runs:
                        exec(code, namespace)  # the repository's own pages
                except Exception:
                    return [*said, f"{where}: {traceback.format_exc(limit=-3)}"]
    return said


def main(names: list[str]) -> None:
    pages = [ROOT / n for n in names] or [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    said = []
    for page in pages:
        began = time.perf_counter()
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
            said += (found := check(page))
        print(
            f"{page.relative_to(ROOT)}: {'ok' if not found else 'FAILED'}, {time.perf_counter() - began:.0f} s",
            flush=True,
        )
    if said:
        raise SystemExit("\n".join(said))


if __name__ == "__main__":
    main(sys.argv[1:])
