"""What the site makes of the code itself: the tables of what there is, and a page of reference for every room.

`mkdocs build` calls these functions (`hooks` in mkdocs.yml). A page has ``<!-- table: encoders -->`` where one goes.
"""

import pathlib
import re

from mkdocs.structure.files import File

from mtl_jax.reporting import registry

ROOT = pathlib.Path(__file__).parent.parent
TABLES = {
    "balancing methods": registry.methods_markdown,
    "options of balancing": registry.options_markdown,
    "sharing architectures": registry.sharing_markdown,
    "encoders": registry.encoders_markdown,
    "kinds of tasks": registry.kinds_markdown,
}
REPOSITORY = re.compile(r"\[([^\]]*)\]\(\.\./([^)]*)\)")


def on_files(files, config):
    """Adds ``api/<room>.md``, with all public names of the room's modules, and their index."""
    rooms = pages()
    index = ["# Reference", "", "Every room of `mtl_jax`, from its docstrings.", ""]
    for room, modules in rooms.items():
        title = f"mtl_jax.{room}" if room != "mtl_jax" else "mtl_jax"
        lines = [f"# {title}", ""]
        for module in modules:
            lines += [f"## {module.removeprefix('mtl_jax.')}", "", f"::: {module}", "    options:",
                      "      show_root_heading: false", "      show_root_toc_entry: false", ""]  # fmt: skip
        files.append(File.generated(config, f"api/{room}.md", content="\n".join(lines)))
        index.append(f"- [{title}]({room}.md)")
    files.append(File.generated(config, "api/index.md", content="\n".join(index)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Puts the tables in; an unknown one is an error. Links to files beside the pages stay as text."""
    del config, files

    def table(found: re.Match) -> str:
        if found[1] not in TABLES:
            raise ValueError(f"{page.file.src_uri}: no table {found[1]!r}; ({', '.join(TABLES)})")
        return TABLES[found[1]]()

    return REPOSITORY.sub(_of_repository, re.sub(r"<!-- table: (.*?) -->", table, markdown))


def pages() -> dict[str, list[str]]:
    """{room: its modules}; single files of the package are one room."""
    rooms: dict[str, list[str]] = {"mtl_jax": []}
    for path in sorted((ROOT / "mtl_jax").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__init__":
            continue
        rooms.setdefault(parts[1] if len(parts) > 2 else "mtl_jax", []).append(".".join(parts))
    return rooms


def _of_repository(found: re.Match) -> str:
    """A link out of the pages to a file of the repository, which the site does not hold: its path stays in the text."""
    if not (ROOT / found[2].split("#")[0]).exists():
        raise ValueError(f"a page links to {found[2]}, which is not there")
    return found[1]
