"""Writes docs/sources.md: where the recordings come from, and how many sounds each class has.

python -m projects.box_model.source_tables
"""

import collections
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from projects.box_model.scenes.repositories import Repository, read_repositories
from projects.box_model.scenes.sounds import (
    SPLITS,
    Recording,
    Sound,
    all_sounds,
    is_played,
    read_recordings,
)
from sat_jax.runtime.files import atomic_write

DOCUMENT = Path(__file__).parent / "docs" / "sources.md"

_HEAD = """# Sources of the recordings

Written by `python -m projects.box_model.source_tables`. Besides these, the soundfont in fluid-
soundfont-gm (MIT) plays instruments and effects. None of the licences forbids derived works. All
sounds keep their licences, and are not part of this project.
"""

_REPOSITORIES = """## GitHub repositories

At the commits in `data/repositories.csv`. Each row of `data/clips.csv` has the licence of the file
and its credit: the number on Freesound or another origin, and the author. These files of the
repository say so. Files with an unclear licence or origin are left out.
"""

_ESC_50 = """## ESC-50

No recording may come from a sound of ESC-50, the collection that contains ESC-10. Given the numbers
of its clips on Freesound, this command fails if one does:

```console
$ python -m projects.box_model.scenes.freesound --numbers esc_freesound_numbers.csv
0 of {count} recordings come from 1524 sounds
```
"""

_CLASSES = """## Classes

Recordings / groups of recordings that share something, by the class after which a sound is drawn.
*Played* are sounds of the soundfont, in all splits.
"""


def source_tables() -> str:
    """Returns the document as Markdown."""
    recordings, repositories = read_recordings(), read_repositories()
    packages = [one for one in recordings if one.source not in repositories]
    others = [one for one in recordings if one.source in repositories]
    lines = [
        _HEAD,
        f"## Debian packages\n\n{len(packages)} recordings.\n",
        "| package | recordings | licence |",
        "|---|--:|---|",
        *_rows(packages),
        f"\n{_REPOSITORIES}\n{len(others)} recordings.\n",
        "| repository | recordings | licences | credits |",
        "|---|--:|---|---|",
        *_rows(others, repositories),
        f"\n{_ESC_50.format(count=len(recordings))}\n{_CLASSES}",
        f"| class | {' | '.join(SPLITS)} | played |",
        "|---|" + "--:|" * (len(SPLITS) + 1),
        *_class_rows(all_sounds()),
    ]
    return "\n".join([*lines, ""])


def _rows(
    recordings: Iterable[Recording], repositories: Mapping[str, Repository] | None = None
) -> Iterator[str]:
    """Yields a row for each source, those with most recordings first."""
    by_source = collections.defaultdict[str, list[Recording]](list)
    for one in recordings:
        by_source[one.source].append(one)
    for source, found in sorted(by_source.items(), key=lambda item: (-len(item[1]), item[0])):
        licences = ", ".join(sorted({one.licence for one in found}))
        if repositories is None:
            yield f"| {source} | {len(found)} | {licences} |"
        else:
            name = repositories[source].repository
            link = f"[{name}](https://github.com/{name})"
            yield f"| {link} | {len(found)} | {licences} | {repositories[source].credits} |"


def _class_rows(sounds: Iterable[Sound]) -> Iterator[str]:
    by_label = collections.defaultdict[str, list[Sound]](list)
    for sound in sounds:
        by_label[sound.label].append(sound)
    for label, found in sorted(by_label.items()):
        cells = [label]
        for split in SPLITS:
            recorded = [one for one in found if one.split == split and not is_played(one)]
            groups = len({one.group for one in recorded})
            cells.append(f"{len(recorded)} / {groups}" if recorded else "-")
        cells.append(str(sum(map(is_played, found)) or "-"))
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    with atomic_write(DOCUMENT) as temporary:
        temporary.write_text(source_tables(), encoding="utf-8")
