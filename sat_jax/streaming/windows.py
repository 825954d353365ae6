"""Windows on the host: samples wait in NumPy arrays until a step can take them."""

import numpy as np

from sat_jax.streaming.framing import Framing
from sat_jax.streaming.state import StreamState


def cut_windows(
    framing: Framing, samples: np.ndarray, *, begins: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts the samples of a stream into windows.

    Args:
      framing: of the stream.
      samples: float32 [s], the margin of the first window included.
      begins: whether the stream begins here. Then the first margin's values do not matter: it
        becomes the mirror image of the samples that follow.

    Returns:
      The complete windows [k, framing.window], and the samples that wait for the next one. Both may
      be views of `samples`.
    """
    hop, window, margin = framing.hop, framing.window, framing.margin
    count = max(0, (len(samples) - window) // hop + 1)
    if not count:
        return np.zeros((0, window), np.float32), samples
    if begins and margin:
        samples = np.concatenate([samples[2 * margin : margin : -1], samples[margin:]])
    if count == 1:  # As in a step, where a general view would take longer than all else here.
        return samples[None, :window], samples[hop:]
    windows = np.lib.stride_tricks.sliding_window_view(samples, window)
    return windows[: count * hop : hop], samples[count * hop :]


def hold_samples(
    framing: Framing, state: StreamState, samples: np.ndarray
) -> tuple[np.ndarray, StreamState]:
    """Puts samples into the windows of streams.

    Args:
      framing: of the streams.
      state: of the streams, from `check_streams`; it stays valid.
      samples: float32 [b, s], 1 <= s <= framing.hop.

    Returns:
      The windows [b, framing.window] of the streams that are now ready, any values in other rows;
      and the next state. Its `cache` and `peak_db` are still those of the state before.
    """
    filled = state.filled + samples.shape[1]
    ready = filled >= framing.window
    waiting = np.zeros((len(samples), framing.window), np.float32)
    windows = []
    for row, (held, start) in enumerate(zip(state.window, state.filled, strict=True)):
        joined = np.concatenate([held[:start], samples[row]]) if start else samples[row]
        complete, rest = cut_windows(framing, joined, begins=state.chunks[row] == 0)
        windows.append(complete[0] if ready[row] else held)
        waiting[row, : len(rest)] = rest
    # A single stream needs no copy.
    stacked = np.stack(windows) if len(windows) > 1 else windows[0][None]
    return stacked, state._replace(
        window=waiting,
        filled=np.where(ready, filled - framing.hop, filled),
        chunks=state.chunks + ready,
        ready=ready,
    )
