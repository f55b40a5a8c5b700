"""The text of a file: unpacked, decoded, and its fingerprint; what is no table is said to be none."""

import dataclasses
import gzip
import hashlib
import pathlib
import warnings
import zlib

MARKS = {  # how other formats begin
    b"PK\x03\x04": "a zip archive or an Excel workbook; save its sheet as CSV, or read it with pandas.read_excel and "
    "give the frame to from_dataframe",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save its sheet as CSV",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89HDF": "an HDF5 file; read it and give its arrays to from_arrays",
    b"SQLite format 3": "a SQLite data base; read a query into a data frame and give that to from_dataframe",
    b"ARROW1": "an Arrow file; read it with polars.read_ipc and give the frame to from_dataframe",
}
BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclasses.dataclass(frozen=True)
class Text:
    """A file's text.

    Attributes:
      path: for messages.
      content: with ``\\n`` at line ends.
      encoding: that it was decoded by.
      sha256: of the file's bytes as they lie on the disk.
    """

    path: str
    content: str
    encoding: str
    sha256: str


def read_bytes(path: str | pathlib.Path) -> bytes:
    """The bytes of a file, unpacked if its name ends in .gz; raises what `read_with_digest` does."""
    return read_with_digest(path)[0]


def read_with_digest(path: str | pathlib.Path) -> tuple[bytes, str]:
    """(the bytes of a file, unpacked if its name ends in .gz; the `fingerprint` of what was read).

    Raises:
      FileNotFoundError, IsADirectoryError: naming the file.
      ValueError: if it is truncated.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    try:
        return (gzip.decompress(content) if path.suffix == ".gz" else content), digest
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is truncated or damaged: {error}") from error


def begins_with(path: pathlib.Path, mark: bytes) -> bool:
    """Whether there is a file that begins so."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(mark)) == mark


def fingerprint(path: str | pathlib.Path) -> str:
    """SHA-256 of the file's bytes as they lie on the disk."""
    with pathlib.Path(path).expanduser().open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(path: str | pathlib.Path) -> str:
    """The UTF-8 text of a file, unpacked if its name ends in .gz.

    Raises:
      FileNotFoundError: naming the file.
      ValueError: if it is truncated or no UTF-8 text.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error


def decode(path: str | pathlib.Path, encoding: str | None = None) -> Text:
    """The text of a table.

    Without `encoding`: what a byte-order mark says, else UTF-8, else UTF-16 if every other byte is 0, else cp1252
    (Latin-1 where cp1252 has no letter), which is warned of, as any bytes can be read so.

    Raises:
      FileNotFoundError: naming the file.
      ValueError: for a file of another format, or one that `encoding` cannot read.
    """
    (content, digest), shown = read_with_digest(path), str(path)
    for mark, what in MARKS.items():
        if content.startswith(mark):
            raise ValueError(f"{shown} is no table of text but {what}")
    chosen = encoding or next((e for m, e in BYTE_ORDER_MARKS.items() if content.startswith(m)), None)
    if chosen is None and b"\0" in content[:1000]:
        low, high = content[:1000:2].count(0), content[1:1000:2].count(0)
        chosen = "utf-16-le" if high > 300 > 10 * low else "utf-16-be" if low > 300 > 10 * high else None
        if len(content) < 1000 and not chosen:
            half = len(content[:1000]) // 2
            chosen = "utf-16-le" if high > 0.8 * half and not low else "utf-16-be" if low > 0.8 * half else None
        if chosen is None:
            raise ValueError(f"{shown} is no table of text: it holds bytes of 0")
    try:
        text = content.decode(chosen or "utf-8")
    except LookupError as error:
        raise ValueError(f"{shown}: there is no encoding {chosen!r}; utf-8, utf-16, cp1252 and latin-1 are") from error
    except UnicodeDecodeError as error:
        if chosen is not None:
            raise ValueError(f"{shown} is not {chosen} text: {error}") from error
        text, chosen = _decode_old(shown, content, error)
    text = text.removeprefix("\ufeff")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return Text(shown, text, chosen or "utf-8", digest)


def _decode_old(path: str, content: bytes, error: UnicodeDecodeError) -> tuple[str, str]:
    """Bytes that are not UTF-8 by the table of old Windows, and a warning that shows a word of it."""
    try:
        text, chosen = content.decode("cp1252"), "cp1252"
    except UnicodeDecodeError:
        text, chosen = content.decode("latin-1"), "latin-1"
    line = content.count(b"\n", 0, error.start) + 1
    around = text[max(0, error.start - 8) : error.start + 8].replace("\n", " ").replace("\r", " ")
    warnings.warn(
        f"{path}, line {line} is not UTF-8 text; the file is read as {chosen}, where it says {around!r}. "
        "encoding= chooses another",
        UserWarning,
        stacklevel=5,
    )
    return text, chosen
