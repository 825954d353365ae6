"""How good taggers are on labelled clips (floor 5)."""
