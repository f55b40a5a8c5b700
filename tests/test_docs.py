"""README is short and its counts are the registries'; pages link to what is there, and name programs that are there."""

import importlib.util
import pathlib
import re

import pytest

from mtl_jax import balancing, sharing

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_is_short_and_counts_what_there_is():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert re.findall(r"\[(\d+) (architectures|methods)\]", text) == [
        (str(len(sharing.NAMES)), "architectures"), (str(len(balancing.NAMES)), "methods"),
    ]  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_commands_name_what_is_there(page):
    """Their code runs in `scripts/check_docs.py`, which takes longer."""
    checks = script("check_docs")
    text = page.read_text()
    assert checks.faults_of_links(page, re.sub(r"```.*?```", "", text, flags=re.DOTALL)) == []
    assert [f for piece in checks.pieces(text) for f in checks.faults_of_commands(piece.code)] == []


def test_what_is_wrong_with_a_page_is_said(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "[gone](gone.md)\n<!-- setup\nx = 1\n-->\n```python\nassert x == 1\n```\n"
        "```bash\npython -m experiments.gone --config=experiments/configs/gone.py\n```\n"
        "<!-- not run: needs a file -->\n```python\nraise OSError\n```\n```python\nassert x == 2, 'two'\n```\n"
    )
    said = script("check_docs").check(page)
    assert said[:3] == [
        "page.md: no gone.md to link to", "page.md, line 9: no program experiments.gone",
        "page.md, line 9: no config experiments/configs/gone.py",
    ]  # fmt: skip
    assert len(said) == 4 and said[3].startswith("page.md, line 16") and "two" in said[3]
