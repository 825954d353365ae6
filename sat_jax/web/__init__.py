"""The page that shows what is heard. The exported page and the server's page are both made of it.

A page is these files and those of its engine, in one folder. `main.js` imports `engine.js`, and
says what an engine gives.
"""

from pathlib import Path

_SUFFIXES = (".css", ".html", ".js")


def page_files(engine: Path) -> dict[str, bytes]:
    """Returns the files of a page by name.

    Args:
      engine: the folder with `engine.js` and what else the page needs.
    """
    return {
        path.name: path.read_bytes()
        for folder in (Path(__file__).parent, engine)
        for path in sorted(folder.iterdir())
        if path.suffix in _SUFFIXES
    }
