"""Writes the constraints file of the Python that runs it: `make lock`.

Resolves the extras for development, training and strong labels together, so that one set of
versions fits all, to the newest releases that pyproject.toml allows. Nothing but metadata is
downloaded.
"""

import json
import subprocess
import sys
from pathlib import Path

# Not the newest, but the one with which the golden files are checked on every change.
HELD_BACK = ("torch==2.13.0",)
HEADER = "# Exact versions for pip's --constraint, on Python {}.{}: made by `make lock`.\n"


def resolve(*requirements: str) -> dict[str, str]:
    """Returns name -> version of all that an empty environment would need."""
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-input"]
    pip += ["--dry-run", "--ignore-installed", "--report", "-", *requirements]
    report = json.loads(subprocess.run(pip, check=True, stdout=subprocess.PIPE).stdout)
    found = (item["metadata"] for item in report["install"])
    return {item["name"].lower().replace("_", "-"): item["version"] for item in found}


def main() -> None:
    """Writes py<major><minor>.txt beside this file."""
    here = Path(__file__).parent
    pins = resolve(f"{here.parent}[dev,strong,train]", *HELD_BACK)
    del pins["sat-jax"]
    # What follows a + names a build that one machine has, not a release that all can get.
    lines = [f"{name}=={version.partition('+')[0]}\n" for name, version in sorted(pins.items())]
    major, minor = sys.version_info[:2]
    (here / f"py{major}{minor}.txt").write_text(HEADER.format(major, minor) + "".join(lines))


if __name__ == "__main__":
    main()
