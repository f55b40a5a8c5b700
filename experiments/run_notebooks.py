"""Runs every notebook from top to bottom in a scratch folder, and fails where one fails.

python -m experiments.run_notebooks [NAME ...]
"""

import pathlib
import sys
import tempfile
import time

NOTEBOOKS = pathlib.Path(__file__).parent / "notebooks"


def run(path: pathlib.Path) -> float:
    """Seconds that the notebook took; raises nbclient's CellExecutionError with the failing cell."""
    try:
        import nbclient
        import nbformat
    except ImportError as error:
        raise SystemExit("error: running notebooks needs nbclient: pip install -e '.[notebook]'") from error
    notebook = nbformat.read(path, as_version=4)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        resources = {"metadata": {"path": scratch}}
        nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    return time.perf_counter() - began


def main(names: list[str]) -> None:
    paths = [NOTEBOOKS / f"{name}.ipynb" for name in names] or sorted(NOTEBOOKS.glob("*.ipynb"))
    for path in paths:
        if not path.exists():
            have = ", ".join(p.stem for p in sorted(NOTEBOOKS.glob("*.ipynb")))
            raise SystemExit(f"error: there is no notebook {path.stem!r}; there are {have}")
        print(f"{path.name}: {run(path):.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
