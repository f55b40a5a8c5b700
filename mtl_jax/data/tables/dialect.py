"""How a text file lays its cells out: separator, quotes and comments, sniffed from its first lines."""

import csv
import dataclasses
import itertools
from collections.abc import Iterator

SEPARATORS = (",", ";", "\t", "|")
NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", " ": "space"}
SAMPLE = 1 << 18  # characters that are looked at
LONGEST = 1 << 40  # of a cell; the csv module's own bound is 131,072


@dataclasses.dataclass(frozen=True)
class Dialect:
    """The layout of a file.

    Attributes:
      separator: between cells.
      quote: around cells that hold separators; "" for none.
      comment: what a line of comment begins with; "" for none.
    """

    separator: str = ","
    quote: str = '"'
    comment: str = ""

    def describe(self) -> str:
        """In words, such as ``separated by semicolon, quotes "``."""
        words = [f"separated by {NAMES.get(self.separator, repr(self.separator))}"]
        words += [f"quotes {self.quote}"] if self.quote else ["no quotes"]
        return ", ".join(words + ([f"comments {self.comment}"] if self.comment else []))


def sniff(text: str, separator: str | None = None, quote: str | None = None, comment: str | None = None) -> Dialect:
    """The dialect of `text`; what is given is kept.

    The separator is the one that splits most of the first lines into as many cells as the header has, and more than
    one; where none does, there is one column. Lines in front of the header that begin with # are comments, unless
    they have as many cells as the rows have.
    """
    sample = text[:SAMPLE]
    if len(text) > SAMPLE:
        sample = sample[: sample.rfind("\n") + 1] or sample
    quote = quote if quote is not None else _quote(sample)
    lines = list(itertools.islice((line for line in sample.split("\n") if line.strip()), 500))
    candidates = SEPARATORS if separator is None else (separator,)
    if comment is None:
        comment = "#" if lines and lines[0].startswith("#") and _is_comment(lines, candidates, quote) else ""
    if comment:
        lines = [line for line in lines if not line.startswith(comment)]
    if separator is None:
        separator = max(candidates, key=lambda s: _agreement(lines, s, quote))
        if _agreement(lines, separator, quote)[0] == 0:
            separator = ","
    return Dialect(separator, quote, comment)


def reader(lines: Iterator[str], dialect: Dialect, strict: bool = True) -> Iterator[list[str]]:
    """The csv module's reader of lines (with their ends) in a dialect."""
    quoting = {"quotechar": dialect.quote} if dialect.quote else {"quoting": csv.QUOTE_NONE}
    return csv.reader(lines, delimiter=dialect.separator, strict=strict, **quoting)


def _quote(sample: str) -> str:
    """A single quote only where it stands around cells and double ones do not occur."""
    if '"' in sample or "'" not in sample:
        return '"'
    around = sum(sample.count(f"{s}'") for s in (*SEPARATORS, "\n")) and sum(
        sample.count(f"'{s}") for s in (*SEPARATORS, "\n")
    )
    return "'" if around and around * 2 >= sample.count("'") - 1 else '"'


def _widths(lines: list[str], separator: str, quote: str) -> list[int]:
    try:
        rows = reader((line + "\n" for line in lines), Dialect(separator, quote), strict=False)
        return [len(row) for row in rows if row]
    except csv.Error:
        return [line.count(separator) + 1 for line in lines]


def _agreement(lines: list[str], separator: str, quote: str) -> tuple[float, int]:
    """(share of rows with as many cells as the header, number of cells); (0, 1) where the header has but one."""
    widths = _widths(lines, separator, quote)
    if not widths or widths[0] == 1:
        return 0.0, 1
    rows = widths[1:] or widths
    return sum(w == widths[0] for w in rows) / len(rows) or 1e-9, widths[0]


def _is_comment(lines: list[str], separators: tuple[str, ...], quote: str) -> bool:
    """Whether lines that begin with # are none of the table: more than one in a row, or of another width."""
    rows = [line for line in lines if not line.startswith("#")]
    if not rows:
        return False
    best = max(separators, key=lambda s: _agreement(rows, s, quote))
    width = _widths(rows, best, quote)[0]
    return _widths(lines[:1], best, quote)[0] != width or lines[1].startswith("#")
