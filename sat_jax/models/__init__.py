"""The networks of the paper, from the front end to the named models.

Axis letters in docstrings and comments such as ``# [b, n, d]``:

| letter | axis |
|---|---|
| b | batch: streams or clips |
| k | chunks, one streaming step each |
| s | samples |
| f | mel bins, or frequency patches |
| t | frames, or time patches |
| n | tokens of the current chunk |
| m | cached tokens |
| d | width: features per token |
| h | attention heads |
| l | layers |
| y | classes |
"""
