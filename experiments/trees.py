"""Whether trees would have been the better model: what the training program says of a table."""

from typing import Any

LABELS = 200_000  # training rows times tasks, up to which trees are fitted unasked


def tried(run: Any, data: Any) -> dict[str, Any] | None:
    """Prints how trees and a linear model do on the same rows, or in one line why they were not tried."""
    import mtl_jax as mtl
    from mtl_jax.batch import num_rows

    rows = num_rows(data.train)
    if rows * len(run.tasks) > LABELS:
        print(f"trees were not tried: {rows:,} rows x {len(run.tasks)} tasks are more than {LABELS:,}; in Python "
              "mtl.analysis.beside_trees(run, data) does it")  # fmt: skip
        return None
    try:
        found = mtl.analysis.beside_trees(run, data)
    except (ImportError, ValueError) as error:
        print(f"trees were not tried: {error}")
        return None
    print(f"beside trees and linear models of scikit-learn on the same rows:\n{found}")
    return found.content()
