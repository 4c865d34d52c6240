"""Formats of battles files: what a file is, unpacked within bounds, as a header and rows of cells."""

from zoo.data.formats.read import open_cells
from zoo.data.formats.text import Cells

__all__ = ["Cells", "open_cells"]
