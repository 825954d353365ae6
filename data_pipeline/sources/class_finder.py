"""Classes by the names that people write into tables."""

import collections
import difflib
from collections.abc import Mapping, Sequence

from sat_jax.errors import SatError
from sat_jax.labels import audioset_labels


class ClassFinder:
    """Finds classes by what a person may call them: name, AudioSet mid, or index."""

    def __init__(self, label_names: Sequence[str]) -> None:
        """Takes the model's class names in output order."""
        counts = collections.Counter(label_names)
        self._ambiguous = {name for name, count in counts.items() if count > 1}
        self._names = {name: index for index, name in enumerate(label_names) if counts[name] == 1}
        mids = {
            label.mid: self._names[label.name]
            for label in audioset_labels()
            if label.name in self._names
        }
        indices = {str(index): index for index in range(len(label_names))}
        # A class may be called "7": then that name is meant.
        self._classes: Mapping[str, int] = indices | mids | self._names

    def find_all(self, labels: str, where: str) -> tuple[int, ...]:
        """The indices of ``;``-joined labels, each once, ascending.

        Args:
          labels: what a table says.
          where: file and line, for messages.

        Raises:
          SatError: a label is no class of the model, or the name of several.
        """
        names = [name for part in labels.split(";") if (name := part.strip())]
        return tuple(sorted({self._find(name, where) for name in names}))

    def get(self, name: str, where: str) -> int | None:
        """The index of one class, or None where the model lacks it.

        Raises:
          SatError: several classes have that name; the message begins with `where`.
        """
        if name in self._ambiguous:
            raise SatError(f"{where}: several classes are called {name!r}: give the index")
        return self._classes.get(name)

    def _find(self, name: str, where: str) -> int:
        index = self.get(name, where)
        if index is None:
            close = difflib.get_close_matches(name, self._names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "give a name, AudioSet mid or index"
            raise SatError(f"{where}: the model has no class {name!r}: {hint}")
        return index
