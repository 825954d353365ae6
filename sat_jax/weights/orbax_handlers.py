"""Handlers of orbax that leave nothing behind when an array cannot be read."""

import asyncio
import copy
import functools
from collections.abc import Awaitable, Callable
from typing import Any

_Reader = Callable[..., Awaitable[Any]]


@functools.cache
def patient_handlers() -> Any:
    """Returns a ``type_handler_registry`` for reading.

    orbax reads all arrays at once, stops at the first that fails, and closes its event loop (seen
    in orbax-checkpoint 0.12). The other reads then print tracebacks, from threads that nothing can
    wait for. These handlers wait for all reads before they raise the error.
    """
    from orbax.checkpoint import type_handlers

    kinds = type_handlers.supported_types()
    handlers = ((kind, _patient(type_handlers.get_type_handler(kind))) for kind in kinds)
    return type_handlers.create_type_handler_registry(*handlers)


def _patient(handler: Any) -> Any:
    patient = copy.copy(handler)
    patient.deserialize = _waiting(handler.deserialize)
    patient.metadata = _waiting(handler.metadata)
    return patient


def _waiting(read: _Reader) -> _Reader:
    """Returns the same reader; if it fails, it waits for the tasks that it began."""

    async def reader(*args: Any, **kwargs: Any) -> Any:
        others = asyncio.all_tasks()
        try:
            return await read(*args, **kwargs)
        except Exception:
            await asyncio.gather(*(asyncio.all_tasks() - others), return_exceptions=True)
            raise

    return reader
