"""Metrics of multi-label tagging, as functions of NumPy arrays.

`ranking` has mAP, AUC, d' and lwlrap of clips. `stability` measures the change of scores from chunk
to chunk. `strong` has segment mAP and onset delay on strong labels, `psds` has PSDS1.
`threshold_search` finds a detection threshold for each class. `event_scores` has F1, delay and
false alarms of events, and `rule_search` finds their rules.
"""
