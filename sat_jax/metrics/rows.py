"""Some rows of a table of scores that may be larger than memory."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class ChosenRows:
    """Rows of a table, copied only where they are asked for; otherwise like an array [n, y].

    Attributes:
      table: float [t, y], perhaps mapped from disk.
      rows: int [n], which of them.
    """

    table: np.ndarray
    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Rows n and columns y."""
        return len(self.rows), self.table.shape[1]

    def __len__(self) -> int:
        """How many rows."""
        return len(self.rows)

    def __getitem__(self, wanted: slice | tuple[slice, np.ndarray]) -> np.ndarray:
        """A part: ``[first:last]``, or with int [c] of columns ``[first:last, columns]``."""
        if isinstance(wanted, tuple):
            of_rows, columns = wanted
            return self.table[self.rows[of_rows, None], columns]
        return self.table[self.rows[wanted]]


Scores = np.ndarray | ChosenRows
"""Float [n, y]."""
