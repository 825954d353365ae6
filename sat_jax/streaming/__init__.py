"""Sound as it arrives: framing, the state of streams, one step, and a scan over many."""
