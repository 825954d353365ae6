"""Cost of a streaming step: counted, compiled, timed, and beside the published figures."""
