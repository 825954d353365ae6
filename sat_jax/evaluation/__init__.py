"""How good taggers are on labelled clips."""
