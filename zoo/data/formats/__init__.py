"""Files that people have, of any usual format, as a header and rows of cells, within bounds."""

from zoo.data.formats.read import open_cells, read_records
from zoo.data.formats.text import Cells, Row

__all__ = ["Cells", "Row", "open_cells", "read_records"]
