"""From clips to batches: which window stands where, and reading it."""
