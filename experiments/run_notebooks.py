"""Runs every notebook from top to bottom in a scratch folder, and fails where one fails.

python -m experiments.run_notebooks [--most_steps=N] [NAME ...]

With `--most_steps`, no training that a cell spells out (``num_steps=2000``) takes more steps: every line runs, and the
numbers that it prints are not those of the text.
"""

import argparse
import pathlib
import re
import sys
import tempfile
import time

NOTEBOOKS = pathlib.Path(__file__).parent / "notebooks"


def shortened(code: str, most: int) -> str:
    """The code with `most` in place of larger numbers of steps, and of steps between validations."""
    return re.sub(r"(\b(?:num_steps|eval_every)\"?\s*[=:]\s*)(\d+)\b", lambda m: f"{m[1]}{min(most, int(m[2]))}", code)


def run(path: pathlib.Path, most_steps: int | None = None) -> float:
    """Seconds that the notebook took; raises nbclient's CellExecutionError with the failing cell."""
    try:
        import nbclient
        import nbformat
    except ImportError as error:
        raise SystemExit("error: running notebooks needs nbclient: pip install -e '.[notebook]'") from error
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells if most_steps else ():
        if cell.cell_type == "code":
            cell.source = shortened(cell.source, most_steps)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        resources = {"metadata": {"path": scratch}}
        nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    return time.perf_counter() - began


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of experiments/notebooks; all by default")
    parser.add_argument("--most_steps", type=int, metavar="N", help="of one training; as in the notebook by default")
    given = parser.parse_args(arguments)
    if given.most_steps is not None and given.most_steps < 1:
        parser.error(f"--most_steps={given.most_steps} must be at least 1")
    names = given.names
    paths = [NOTEBOOKS / f"{name}.ipynb" for name in names] or sorted(NOTEBOOKS.glob("*.ipynb"))
    for path in paths:
        if not path.exists():
            have = ", ".join(p.stem for p in sorted(NOTEBOOKS.glob("*.ipynb")))
            raise SystemExit(f"error: there is no notebook {path.stem!r}; there are {have}")
        print(f"{path.name}: {run(path, given.most_steps):.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
