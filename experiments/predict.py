"""Predictions of a run for the rows of a table, written beside them.

python -m experiments.predict --workdir=runs/a --csv=new.csv --out=predictions.csv

The rows are encoded as those of training were; columns may come in any order, and further ones are kept. Written are,
for each task, the prediction, and a probability for each class. Of a calibrated run (as `experiments.train` leaves it
where there are validation rows) also the interval of a number, or the set of classes, that holds the label with
probability --coverage.
"""

import os
import pathlib

from absl import flags

from experiments import launch

flags.adopt_module_key_flags(launch)
WORKDIR = flags.DEFINE_string("workdir", None, "The run.")
CSV = flags.DEFINE_string("csv", None, "A CSV or Parquet file of rows to predict for.")
OUT = flags.DEFINE_string("out", None, "The file to write: CSV, or Parquet if its name ends so.")
COVERAGE = flags.DEFINE_float("coverage", 0.9, "Of intervals and sets, in (0, 1); 0: write none.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 1024, "Rows per compiled call.", lower_bound=1)


def main() -> int:
    import mtl_jax as mtl
    from mtl_jax.data.tables import read_table
    from mtl_jax.data.tables.predictions import beside
    from mtl_jax.uncertainty import regions

    run, out = mtl.load_run(WORKDIR.value), pathlib.Path(OUT.value).expanduser()
    if run.columns is None:
        raise ValueError(f"{WORKDIR.value} was not trained on a table, so that it cannot read {CSV.value}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {out.parent} to write {out.name} to")
    table = read_table(CSV.value)
    predicted, wanted = run.predict(table, BATCH_SIZE.value), COVERAGE.value
    inside = regions(run.calibration, run.tasks, predicted, wanted) if run.calibration and wanted else None
    found = beside(table.columns, run.tasks, predicted, inside)
    draft = out.with_name(out.name + ".tmp")
    (found.write_parquet if out.suffix in (".parquet", ".pq") else found.write_csv)(draft)
    os.replace(draft, out)
    for name, cells in run.columns.unseen(table).items():
        shown = ", ".join(sorted(set(cells))[:5])
        print(f"column {name!r}: {len(cells)} of {table.num_rows} rows have values that training rows did not have "
              f"({shown}); they count as unknown")  # fmt: skip
    said = f"with intervals and sets of {wanted:.0%} coverage" if inside else "without intervals: it is not calibrated"
    print(f"{table.num_rows:,} rows with predictions of {', '.join(t.name for t in run.tasks)}, {said}; {out}")
    return 0


if __name__ == "__main__":
    launch.run(main, required=("workdir", "csv", "out"))
