"""The document of sources agrees with the tables."""

import csv

from projects.box_model.scenes.sounds import RECORDINGS
from projects.box_model.source_tables import DOCUMENT, source_tables


def test_the_document_is_that_of_the_present_tables():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == source_tables()
    with RECORDINGS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = [row for row in rows if row["source"] == "scratch"]
    assert f"| scratch | {len(found)} | CC-BY-SA-3.0 |" in text.splitlines()
    sneezes = [row for row in rows if row["labels"].split(";")[0] == "Sneeze"]
    of_split = {
        split: [row for row in sneezes if row["split"] == split]
        for split in ("train", "validation", "test")
    }
    cells = [f"{len(some)} / {len({row['group'] for row in some})}" for some in of_split.values()]
    expected = ["Sneeze", *("-" if cell == "0 / 0" else cell for cell in cells)]
    assert any(line.startswith(f"| {' | '.join(expected)} |") for line in text.splitlines())
