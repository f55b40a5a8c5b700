"""Cells of text as numbers, booleans and dates: each format is recognised on a whole column or not at all."""

import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from mtl_jax.data.kinds import BOOLEANS

MISSING = ("", "NA", "N/A", "n/a", "na", "#N/A", "<NA>", "NaN", "nan", "NAN", "NaT", "null", "NULL", "Null", "None",
           "none", "NONE", "?", "-", "--", ".")  # fmt: skip
SYMBOLS = r"[$€£¥%]"
SPACES = "[ \u00a0\u202f'’]"  # between thousands
DATES = (
    "%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d.%m.%y", "%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%d/%m/%y", "%d-%m-%Y",
    "%m-%d-%Y", "%d-%b-%Y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y",
)  # fmt: skip
TIMES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S%.f", "T%H:%M", "T%H:%M:%S", "T%H:%M:%S%.f")
AMBIGUOUS = (("%m/%d/%Y", "%d/%m/%Y"), ("%m/%d/%y", "%d/%m/%y"), ("%d-%m-%Y", "%m-%d-%Y"))
WIDE = r"^[+-]?0*[1-9]\d{15,}$"  # float64 would merge such numbers


class Format(NamedTuple):
    """How numbers are spelled.

    Attributes:
      decimal: "." or ",".
      thousands: "", ".", ",", or " " for blanks and apostrophes.
      symbol: a currency sign or % that all cells carry, or "".
    """

    decimal: str = "."
    thousands: str = ""
    symbol: str = ""

    def describe(self) -> str:
        """In words; "" for plain numbers."""
        words = ["decimal comma"] if self.decimal == "," else []
        words += [f"thousands {self.thousands!r}"] if self.thousands else []
        return ", ".join(words + ([f"in {self.symbol}"] if self.symbol else []))


PLAIN = Format()


def kept(values: Any, keep: Any) -> Any:
    """A column with null wherever `keep` (a bool column) does not hold."""
    import polars as pl

    return pl.select(pl.when(keep).then(values)).to_series().alias(values.name)


def without_missing(cells: Any, words: Collection[str] = MISSING) -> Any:
    """The text column with null where a cell is one of `words`."""
    return kept(cells, ~cells.is_in(list(words)))


def parse_numbers(cells: Any, how: Format = PLAIN) -> Any:
    """float64 column of a text column; null where a cell is null or no number of that format."""
    import polars as pl

    if how.symbol:
        cells = cells.str.replace_all(how.symbol, "", literal=True).str.strip_chars()
    if how.thousands == " ":
        good = cells.str.contains(
            rf"^[+-]?\d{{1,3}}({SPACES}\d{{3}})*(\{how.decimal}\d+)?$|^[+-]?\d+(\{how.decimal}\d+)?$"
        )
        cells = kept(cells, good).str.replace_all(SPACES, "")
    elif how.thousands:
        mark, point = re.escape(how.thousands), re.escape(how.decimal)
        good = cells.str.contains(
            rf"^[+-]?\d{{1,3}}({mark}\d{{3}})+({point}\d+)?$|^[+-]?\d*({point}\d+)?([eE][+-]?\d+)?$"
        )
        cells = kept(cells, good).str.replace_all(how.thousands, "", literal=True)
    if how.decimal == ",":
        cells = kept(cells, ~cells.str.contains(".", literal=True)).str.replace(",", ".", literal=True)
    # What polars accepts beyond digits: inf, which callers refuse by its line, and nan.
    return cells.cast(pl.Float64, strict=False).fill_nan(None)


def unparsed(cells: Any, values: Any) -> Any:
    """The cells that are there and were not read."""
    return cells.filter(values.is_null() & cells.is_not_null())


def number_formats(values: Any, given: Format | None = None) -> list[Format]:
    """The formats in which all of `values` (distinct text cells) are numbers; the first is the likelier one."""
    if given is not None:
        return [given] if not len(unparsed(values, parse_numbers(values, given))) else []
    symbol = ""
    first = values[0] if len(values) else ""
    if found := re.search(SYMBOLS, first):
        symbol = found[0]
        if not values.str.contains(symbol, literal=True).all():
            return []
    candidates = [Format(".", "", symbol), Format(".", ",", symbol), Format(",", "", symbol), Format(",", ".", symbol),
                  Format(".", " ", symbol), Format(",", " ", symbol)]  # fmt: skip
    return [f for f in candidates if not len(unparsed(values, parse_numbers(values, f)))]


def has_leading_zeros(values: Any) -> bool:
    """Whether some whole number begins with a 0 that would be lost, as codes do."""
    return bool(values.str.contains(r"^[+-]?0\d+$").any())


def boolean_words(values: Sequence[str]) -> tuple[str, str] | None:
    """The pair of `BOOLEANS` that the distinct cells are of, in any case."""
    lowered = {v.lower() for v in values}
    return next((pair for pair in BOOLEANS if lowered and lowered <= set(pair) and len(lowered) == 2), None)


def parse_dates(cells: Any, how: str) -> Any:
    """Datetime column (microseconds, in UTC where a zone is given) of a text column; null where a cell is no date."""
    import polars as pl

    if "%H" not in how:
        return cells.str.to_date(how, strict=False).cast(pl.Datetime("us"))
    zones = cells.str.extract_groups(r"[0-9.](Z|([+-])(\d\d):?(\d\d))$").struct
    zoned = zones.field("1").is_not_null()
    if not zoned.any():
        return cells.str.to_datetime(how, strict=False, time_unit="us")
    plain = cells.str.replace(r"(Z|[+-]\d\d:?\d\d)$", "").zip_with(zoned, cells)
    minutes = zones.field("3").cast(pl.Int64).fill_null(0) * 60 + zones.field("4").cast(pl.Int64).fill_null(0)
    minutes = (-minutes).zip_with((zones.field("2") == "-").fill_null(False), minutes)
    local = plain.str.to_datetime(how, strict=False, time_unit="us")
    return local - (minutes * 60_000_000).cast(pl.Duration("us"))  # in UTC


def date_formats(values: Any) -> list[str]:
    """The formats of `DATES` x `TIMES` that all of `values` (distinct text cells) have."""
    if not len(values) or not values[:50].str.contains(r"^\w{1,9}[-/. ]\w{1,9}[-/., ]+\d").all():
        return []
    # chrono's %Y takes 7 and 12345 too, so that 1.2.7 would be a day of a year
    years = {True: bool(values.str.contains(r"(^|\D)\d{4}(\D|$)").all()), False: True}
    found = []
    for day in DATES:
        if not years["%Y" in day]:
            continue
        for time in TIMES:
            if parse_dates(values[:50], day + time).null_count():
                continue
            if not parse_dates(values, day + time).null_count():
                found.append(day + time)
                break
    return found
