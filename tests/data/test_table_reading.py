"""Files to cells: against the csv module, whatever the layout; and errors that name file and line."""

import csv
import gzip
import io
import random

import numpy as np
import pandas
import polars
import pytest

import mtl_jax as mtl
from mtl_jax.data.tables import read_columns, read_csv, read_table


def write(path, rows, separator=",", quoting=csv.QUOTE_MINIMAL, end="\n", encoding="utf-8"):
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator=end, quoting=quoting).writerows(rows)
    path.write_bytes(text.getvalue().encode(encoding))


def cells(table):
    return [list(row) for row in zip(*([v or "" for v in s.to_list()] for s in table.columns.values()), strict=True)]


@pytest.mark.parametrize("seed", range(60))
def test_any_layout_is_read_as_the_csv_module_wrote_it(seed, tmp_path):
    draw = random.Random(seed)
    width = draw.randint(2, 6)
    alphabet = draw.choice(["ab1 .", "ab\"'1", "aé,;\t|x", 'a\n b"', "0123456789."]) + "z"
    rows = [
        ["".join(draw.choice(alphabet) for _ in range(draw.randint(0, 6))) for _ in range(width)]
        for _ in range(draw.randint(1, 30))
    ]
    header = [f"c{i}" for i in range(width)]
    path = tmp_path / "a.csv"
    write(path, [header, *rows], draw.choice(",;\t|"), draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
          draw.choice(["\n", "\r\n"]), draw.choice(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"]))  # fmt: skip
    table = read_table(path)
    assert list(table.columns) == header
    assert cells(table) == [[c.strip() for c in row] for row in rows]


def test_blank_lines_comments_and_packed_files(tmp_path):
    text = "# made by hand\n# in 2020\n\na;b\n1;x\n\n2;\n# between\n3;z\n\n"
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("a.csv", "a.csv.gz"):
        table = read_table(tmp_path / name)
        assert cells(table) == [["1", "x"], ["2", ""], ["3", "z"]]
        assert [table.place(i) for i in range(3)] == ["line 5", "line 7", "line 9"]
    assert "comments #" in table.layout and "semicolon" in table.layout
    polars.DataFrame({"a": [1, 2], "b": ["x", None]}).write_parquet(tmp_path / "a.parquet")
    assert cells(read_table(tmp_path / "a.parquet")) == [[1, "x"], [2, ""]]


PIPES = [f"pipe {i},{i},{i % 2}" for i in range(60)]


def test_quotes_that_swallow_rows_are_refused_with_their_line(tmp_path):
    def reading(changes, **more):
        rows = list(PIPES)
        for i, row in changes.items():
            rows[i] = row
        (tmp_path / "a.csv").write_text("name,size,ok\n" + "\n".join(rows) + "\n")
        return read_table(tmp_path / "a.csv", **more)

    for other in ('b 6" pipe",200,1', '"7 inch pipe,200,1', 'pipe 7",200,1', "plain,200,1"):
        with pytest.raises(ValueError, match="a.csv, line 12: a cell begins with the quote"):
            reading({10: '"5 inch pipe,10,0', 40: other})
    assert reading({10: '"5 inch pipe,10,0'}, quote="").num_rows == 60
    table = reading({10: '5" pipe,10,0', 40: 'pipe of 6",40,0'})  # quotes inside of a cell are text
    assert table.num_rows == 60 and table.columns["name"][10] == '5" pipe' and table.columns["name"][40] == 'pipe of 6"'
    table = reading({10: '"two\nlines, and a ""word""",10,0', 20: f'"{"x" * 200_000}",20,1'})
    assert table.columns["name"][10] == 'two\nlines, and a "word"' and len(table.columns["name"][20]) == 200_000
    assert table.place(11) == "line 14"


def test_ragged_rows_and_files_that_are_no_tables(tmp_path):
    def reading(content, **more):
        (tmp_path / "bad.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(tmp_path / "bad.csv", **more)

    with pytest.raises(ValueError, match="bad.csv, line 4: 1 cells, but the header has 2"):
        reading("a,b\n1,2\n\n3\n")
    with pytest.raises(ValueError, match="bad.csv, line 3: 3 cells, but the header has 2"):
        reading('a,b\n"1",2\n1,2,"3"\n')
    with pytest.raises(ValueError, match="bad.csv is no table of text but a zip archive"):
        reading(b"PK\x03\x04abc")
    with pytest.raises(ValueError, match="bad.csv is no table of text: it holds bytes of 0"):
        reading(b"\x7fELF\x02\x00\x01\x00\x00\x07\x00\x00 \n")
    with pytest.raises(ValueError, match="there is no encoding 'utf8x'"):
        reading("a,b\n1,2\n", encoding="utf8x")
    with pytest.raises(ValueError, match="separator=';;' must be one character"):
        reading("a,b\n1,2\n", separator=";;")
    with pytest.raises(ValueError, match="is not ascii text"):
        reading("a,b\né,2\n", encoding="ascii")
    assert reading("a,b\né,2\n".encode("cp1252"), encoding="cp1252").columns["a"][0] == "é"
    with pytest.raises(IsADirectoryError, match="is a folder"):
        read_table(tmp_path)


def numbers(tmp_path, column, separator=";", **more):
    write(tmp_path / "n.csv", [["a", "b"], *([c, "x"] for c in column)], separator)
    from mtl_jax.data.tables.types import Options

    return read_columns(read_table(tmp_path / "n.csv"), Options(**more))["a"]


def test_numbers_in_the_customs_of_several_countries(tmp_path):
    for written, read in {
        ("1,5", "2,25", "NA"): [1.5, 2.25, None],
        ("1.200,50", "7,00", "-3,5"): [1200.5, 7.0, -3.5],
        ("1,200.5", "7", "?"): [1200.5, 7.0, None],
        ("1 200,5", "7", "null"): [1200.5, 7.0, None],
        ("$950.0", "$1,200.5", ""): [950.0, 1200.5, None],
        ("1e3", " -2 ", "N/A"): [1000.0, -2.0, None],
        ("5%", "6.5%", "-"): [5.0, 6.5, None],
    }.items():
        column = numbers(tmp_path, written)
        assert (column.type, column.values.to_list()) == ("number", read), written
    for text in (["1_2", "12", "100_1"], ["007", "12", "13"], ["12345678901234567", "12345678901234568", "1"],
                 ["1.2.3", "1.2.4", "1.3"]):  # fmt: skip
        assert numbers(tmp_path, text).values.to_list() == text
    with pytest.raises(ValueError, match=r"n.csv, line 2: column 'a' holds '1,200', which could be 1200 or 1.2"):
        numbers(tmp_path, ["1,200", "3,400"])
    assert numbers(tmp_path, ["1,200", "3,400"], decimal=",").values.to_list() == [1.2, 3.4]
    assert numbers(tmp_path, ["1,200", "3,400"], thousands=",").values.to_list() == [1200, 3400]
    assert numbers(tmp_path, ["1,200", "3,400"], ",").values.to_list() == [1200, 3400]  # quoted, between commas


def test_one_word_among_numbers_is_named_and_never_a_class_per_number(tmp_path):
    amounts = [f"{v / 4}" for v in range(100)]
    for odd in ("abc", "$950.0", "12 m"):
        with pytest.raises(
            ValueError, match=rf"n.csv, line 52: column 'a' holds '{odd.replace('$', '.')}', which is no"
        ):
            numbers(tmp_path, [*amounts[:50], odd, *amounts[50:]])
        assert numbers(tmp_path, [*amounts, odd], missing={"a": odd}).missing == 1
    assert numbers(tmp_path, ["1", "2", "3", "A"] * 25).type == "category"
    with pytest.raises(ValueError, match="n.csv, line 5: column 'a' holds inf"):
        numbers(tmp_path, ["1", "2", "3", "inf"])


def test_read_csv_gives_arrays(tmp_path):
    write(tmp_path / "a.csv", [["n", "w", "b"], ["1", "x", "yes"], ["", "", "no"], ["NA", "z", "yes"]])
    found = read_csv(tmp_path / "a.csv")
    np.testing.assert_array_equal(found["n"], [1, np.nan, np.nan])
    assert found["w"].tolist() == ["x", "", "z"] and found["b"].tolist() == ["yes", "no", "yes"]
    assert mtl.data.tables.read_csv is read_csv


def test_a_file_without_a_line_of_names_is_said_to_have_none(tmp_path):
    write(tmp_path / "a.csv", [["63.0", "1.0", "145"], ["67.0", "0.0", "160"]])
    with pytest.warns(UserWarning, match=r"a.csv, line 1: the columns are called 63.0, 1.0, 145; if that is a row"):
        read_table(tmp_path / "a.csv")
    write(tmp_path / "a.csv", [["1.0", "1.0"], ["67.0", "0.0"]])
    with pytest.raises(ValueError, match="line 1: column '1.0' is there twice; is there no line of names"):
        read_table(tmp_path / "a.csv")
    write(tmp_path / "a.csv", [["0", "1"], ["67.0", "0.0"]])  # as frames without names are written
    assert list(read_table(tmp_path / "a.csv").columns) == ["0", "1"]


def test_columns_whose_labels_are_numbers_may_be_named_by_them():
    draw = np.random.default_rng(0)
    frame = pandas.DataFrame(draw.normal(size=(60, 4)))
    data = mtl.data.from_dataframe(frame, targets=[2], inputs=[0, 1], kinds={2: "regression"}, weights=None)
    named = mtl.data.from_dataframe(frame, targets="2", inputs=["0", "1"])
    assert [t.name for t in data.tasks] == ["2"] and data.columns.names == ("0", "1")
    np.testing.assert_array_equal(data.train.targets["2"], named.train.targets["2"])
    assert mtl.data.from_dataframe(frame, 2).tasks == named.tasks
    text = frame.rename(columns=str)
    with pytest.raises(ValueError, match=r"no column 2 \(names are text, such as '2'\); columns are 0, 1, 2, 3"):
        mtl.data.from_dataframe(text, targets=[2])


@pytest.mark.parametrize("quote", ["", '"'])
def test_separators_at_the_end_of_all_rows_make_no_columns(quote, tmp_path):
    path = tmp_path / "a.csv"
    for ends, head in (("\t\t\t", "a\tb"), ("\t", "a\tb"), ("\t\t", "\tb")):
        path.write_text(f"{head}{ends}\n" + "".join(f"{i}\t{quote}{i / 2}{quote}{ends}\n" for i in range(9)))
        found = read_csv(path)
        assert list(found) == head.split("\t") and found["b"].tolist() == [i / 2 for i in range(9)]
    path.write_text(f"a;b;;\n1;{quote}2{quote};;\n1;2;;3\n")
    with pytest.raises(ValueError, match="a.csv, line 1: column '' is there twice"):
        read_csv(path)
