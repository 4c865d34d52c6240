"""Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from zoo.data.formats.text import Cells, Row
from zoo.data.formats.unpack import LEAST_BOUND, MOST_RATIO
from zoo.errors import ZooError

MOST_ROWS = 2**22  # of a file of any size; above, each row takes at least a byte, since its id is its own
BATCH_ROWS = 256  # few enough that a column of one long text over and over is refused before it fills the memory


def read_parquet(stream: BinaryIO, path: Path, size: int) -> Cells:
    """A parquet file of `size` bytes.

    What unpacks to more than texts do is refused, and more rows than ids take, before they are read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(stream)
        header = list(file.schema_arrow.names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if file.metadata.num_rows > max(MOST_ROWS, size):
        raise ZooError(f"{path}: says that it holds {file.metadata.num_rows:,} rows, which no file of {size:,} bytes does")
    most = max(LEAST_BOUND, MOST_RATIO * size)

    def rows(names: Sequence[str]) -> Iterator[Row]:
        unpacked = 0
        try:
            for batch in file.iter_batches(BATCH_ROWS, columns=list(names), use_threads=False):
                unpacked += batch.nbytes
                if unpacked > most:
                    raise ZooError(
                        f"{path}: unpacks to more than {most:,} bytes, which is no text; if it is one, give it as CSV"
                    )
                found: dict[str, list[Any]] = batch.to_pydict()
                for cells in zip(*(found[name] for name in names), strict=True):
                    yield list(cells), len(header)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise _damaged(path, error) from error

    return Cells(header, rows, "parquet")


def _damaged(path: Path, error: Exception) -> ZooError:
    return ZooError(f"{path}: a parquet file that cannot be read ({' '.join(str(error).split())[:200]}); write it again")
