"""What reading and encoding a table cost: rows per second and peak memory, beside pandas with scikit-learn's encoders.

    python -m scripts.benchmarks.tables [--rows 200000] [--numbers 20] [--cities 5000]

The file has `numbers` columns of numbers, one of `cities` values, one of six, and two targets. Every line is a process
of its own, so that memory is its own; memory is what the process held at most beyond its imports. "reading" is
the file to typed columns; "from_csv" is the file to a data set: split, encoded by its training rows, checked. pandas
reads, and scikit-learn's StandardScaler and OrdinalEncoder are fitted to the training rows of the same shares.
"""

import argparse
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

TARGETS = ["price", "sold"]


def write(path: pathlib.Path, rows: int, numbers: int, cities: int) -> None:
    """The file that is read."""
    import polars as pl

    draw = np.random.default_rng(0)
    columns = {f"x{i}": np.round(draw.normal(size=rows), 4) for i in range(numbers)}
    columns["city"] = np.array([f"city{i}" for i in range(cities)])[draw.integers(0, cities, rows)]
    columns["kind"] = np.array(list("abcdef"))[draw.integers(0, 6, rows)]
    columns["price"] = np.round(100 * columns["x0"] + draw.normal(size=rows), 2)
    columns["sold"] = draw.integers(0, 2, rows)
    pl.DataFrame(columns).write_csv(path)


def with_mtl_jax(path: str) -> None:
    """The file to a data set."""
    import mtl_jax as mtl

    mtl.data.from_csv(path, TARGETS)


def reading(path: str) -> None:
    """The file to typed columns."""
    from mtl_jax.data.tables import read_columns, read_table

    read_columns(read_table(path))


def with_pandas(path: str) -> None:
    """The same by pandas and scikit-learn."""
    import pandas
    from sklearn.compose import ColumnTransformer
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import OrdinalEncoder, StandardScaler

    frame = pandas.read_csv(path)
    inputs, targets = frame.drop(columns=TARGETS), frame[TARGETS]
    text = [c for c in inputs if not pandas.api.types.is_numeric_dtype(inputs[c])]
    unknown = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    encoder = ColumnTransformer([("codes", unknown, text)], remainder=StandardScaler())
    train, rest, *_ = train_test_split(inputs, targets, test_size=0.3, random_state=0)
    encoder.fit(train)
    for rows in (train, rest):
        encoder.transform(rows).astype(np.float32)


WAYS = {"mtl_jax: reading": reading, "mtl_jax: from_csv": with_mtl_jax, "pandas + scikit-learn": with_pandas}


def one(way: str, path: str) -> None:
    """Seconds and bytes of one way in this process; its imports are paid before."""
    import sklearn.compose  # noqa: F401

    if "mtl_jax" in way:
        import polars  # noqa: F401

        import mtl_jax.data
        import mtl_jax.data.tables  # noqa: F401
    else:
        import pandas  # noqa: F401
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    WAYS[way](path)
    seconds = time.perf_counter() - start
    print(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--numbers", type=int, default=20)
    parser.add_argument("--cities", type=int, default=5_000)
    parser.add_argument("--one", nargs=2, metavar=("WAY", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        return one(*given.one)
    from mtl_jax.reporting.describe import table

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "table.csv"
        write(path, given.rows, given.numbers, given.cities)
        megabytes, rows = path.stat().st_size / 1e6, []
        for way in WAYS:
            runs = []
            for _ in range(3):
                call = [sys.executable, "-m", "scripts.benchmarks.tables", "--one", way, str(path)]
                done = subprocess.run(call, capture_output=True, text=True, check=True)
                runs.append(tuple(map(float, done.stdout.split()[-2:])))
            seconds, peak = min(r[0] for r in runs), min(r[1] for r in runs)
            rows.append((way, f"{seconds:.2f}", f"{given.rows / seconds:,.0f}", f"{peak / 1e6:,.0f}"))
    print(f"{given.rows:,} rows, {given.numbers + 4} columns, {megabytes:.0f} MB; the best of three runs each")
    print(table(rows, ("way", "seconds", "rows/s", "MB"), right=(1, 2, 3)))


if __name__ == "__main__":
    main()
