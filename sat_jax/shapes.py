"""The letters that name array axes in docstrings and comments (floor 0).

| letter | axis |
|---|---|
| b | batch: streams or clips that share nothing |
| k | chunks, one streaming step each |
| s | samples |
| f | mel bins, or rows of the patch grid |
| t | frames, or columns of the patch grid |
| n | tokens of the piece at hand |
| m | cached tokens |
| d | width: features per token |
| h | attention heads |
| l | layers |
| y | classes |

``# [b, n, d]`` behind a line gives the shape of what the line makes.
"""
