"""How good scores are (floor 1)."""
