"""Predictions of a run for the rows of a table, written beside them.

python -m experiments.predict --workdir=runs/a --csv=new.csv --out=predictions.csv

The rows are encoded as those of training were; columns may come in any order, and further ones are kept. A CSV file is
written with commas between cells and points in numbers, whatever marks were read. Written are,
for each task, the prediction, and a probability for each class. Of a calibrated run (as `experiments.train` leaves it
where there are validation rows) also the interval of a number, or the set of classes, that holds the label with
probability --coverage.
"""

import pathlib

from absl import flags

from experiments import launch

flags.adopt_module_key_flags(launch)
WORKDIR = flags.DEFINE_string("workdir", None, "The run.")
CSV = flags.DEFINE_string("csv", None, "A CSV or Parquet file of rows to predict for.")
OUT = flags.DEFINE_string("out", None, "The file to write: CSV, or Parquet if its name ends so.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace --out if it is there.")
COVERAGE = flags.DEFINE_float("coverage", 0.9, "Of intervals and sets, in (0, 1); 0: write none.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 1024, "Rows per compiled call.", lower_bound=1)


def check_out(out: pathlib.Path, read: pathlib.Path, overwrite: bool) -> None:
    """An error if writing would replace what was read, or what is there and was not said to be replaced."""
    if not out.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {out.parent} to write {out.name} to")
    if out.is_dir():
        raise IsADirectoryError(f"--out={out} is a folder; name a file")
    if out.exists() and read.exists() and out.samefile(read):
        raise ValueError(f"--out={out} is the file of --csv, whose rows would be replaced; name another file")
    if out.exists() and not overwrite:
        raise FileExistsError(f"--out={out} is there already; name another file, or say --overwrite")


def main() -> int:
    import mtl_jax as mtl
    from mtl_jax import files, paths
    from mtl_jax.data.tables import read_table
    from mtl_jax.data.tables.predictions import beside, with_points
    from mtl_jax.reporting.many import some
    from mtl_jax.uncertainty import regions

    run, out = mtl.load_run(WORKDIR.value), paths.local(OUT.value, "--out")
    if run.columns is None:
        raise ValueError(f"{WORKDIR.value} was not trained on a table, so that it cannot read {CSV.value}")
    check_out(out, paths.local(CSV.value, "--csv"), OVERWRITE.value)
    table = read_table(CSV.value)
    predicted, wanted = run.predict(table, BATCH_SIZE.value), COVERAGE.value
    inside = regions(run.calibration, run.tasks, predicted, wanted) if run.calibration and wanted else None
    found = beside(with_points(table, run.columns), run.tasks, predicted, inside)
    with files.replacing(out) as draft:
        (found.write_parquet if out.suffix in (".parquet", ".pq") else found.write_csv)(draft)
    for name, cells in run.columns.unseen(table).items():
        shown = ", ".join(sorted(set(cells))[:5])
        print(f"column {name!r}: {len(cells)} of {table.num_rows} rows have values that training rows did not have "
              f"({shown}); they count as unknown")  # fmt: skip
    for line in run.fallback.lines(run.tasks, all_of_them=False) if run.fallback else ():
        print(line)
    said = f"with intervals and sets of {wanted:.0%} coverage" if inside else "without intervals"
    if not run.calibration:
        said += (": the run is not calibrated (let experiments.train finish with validation rows, or in Python "
                 "run.calibrate(data.val).save(folder))")  # fmt: skip
    print(f"{table.num_rows:,} rows with predictions of {some([t.name for t in run.tasks])}, {said}; {out}")
    return 0


if __name__ == "__main__":
    launch.run(main, required=("workdir", "csv", "out"))
