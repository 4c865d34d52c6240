"""Files that people have, of any usual format, unpacked within bounds into a header and rows of cells."""

from zoo.data.formats.read import open_cells
from zoo.data.formats.text import Cells, Row

__all__ = ["Cells", "Row", "open_cells"]
