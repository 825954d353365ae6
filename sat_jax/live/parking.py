"""Streams of a server that stops, for the next one: their clients come back and lose nothing.

The file is pickled, so it is read only from a folder that others can't write to.
"""

import pickle
import time
from pathlib import Path
from typing import Any

from sat_jax.errors import SatError
from sat_jax.live.hub import Hub
from sat_jax.live.session import WEBSOCKET, Session
from sat_jax.runtime.files import atomic_write, explain_write_errors
from sat_jax.runtime.private_folders import check_private


def park(hub: Hub, path: Path) -> int:
    """Writes the streams of clients to a file, and returns how many.

    Args:
      hub: its engine is paused.
      path: the file.

    Raises:
      SatError: it can't be written.
    """
    parked = [session.park() for session in hub.sessions.values() if session.source == WEBSOCKET]
    with explain_write_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if parked:
        check_private(path.parent)
        with atomic_write(path) as temporary:
            temporary.chmod(0o600)
            temporary.write_bytes(pickle.dumps({"time": time.time(), "streams": parked}))
    return len(parked)


def take_up(hub: Hub, path: Path) -> int:
    """Takes up the streams of a file if it is young enough, removes it, and returns how many.

    Args:
      hub: gets the streams; each waits for its client.
      path: the file, which may be missing.

    Raises:
      SatError: it is damaged, of another model, or others may write to its folder.
    """
    if not path.is_file():
        return 0
    try:
        check_private(path.parent)
        check_private(path)
        parked: dict[str, Any] = pickle.loads(path.read_bytes())
    except SatError:
        raise
    except Exception as error:  # Unpickling a damaged file can raise any type.
        raise SatError(f"{path} is damaged; its streams begin anew") from error
    finally:
        path.unlink(missing_ok=True)
    if time.time() - parked["time"] > hub.resume_window:
        return 0
    for data in parked["streams"]:
        try:
            hub.leave(hub.add(Session.take_up(hub.engine, data)))
        except SatError as error:
            raise SatError(f"{path}: {error}; streams begin anew") from error
    return len(parked["streams"])
