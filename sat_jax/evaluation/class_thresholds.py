"""Each class's threshold, from what a model said about labelled clips."""

from pathlib import Path

from sat_jax.evaluation.answers import aggregate_clips
from sat_jax.evaluation.run import Run
from sat_jax.metrics.thresholds import best_f1_thresholds, precision_thresholds
from sat_jax.weights.checkpoint import Checkpoint
from sat_jax.weights.thresholds_file import save_thresholds


def save_class_thresholds(run: Run, precision: float | None) -> Path:
    """Finds each class's threshold on clips' scores, and saves them beside the checkpoint.

    Args:
      run: what a model said about the clips.
      precision: which precision each class is to have; None asks for the best F1.

    Returns:
      The file.

    Raises:
      SatError: no clip has a label, or the file can't be written.
    """
    tagger = run.tagger
    targets = run.clips.targets(len(tagger.labels))[run.scored.clips]
    scores = aggregate_clips(run.scored, run.hearing.aggregation)
    if precision is None:
        found = best_f1_thresholds(targets, scores)
    else:
        found = precision_thresholds(targets, scores, precision=precision)
    checkpoint = Checkpoint(
        config=tagger.config,
        variables=tagger.variables,
        labels=tagger.labels,
        source=tagger.source,
    )
    columns = {
        "threshold": found.values,
        "f1": found.f1,
        "precision": found.precision,
        "recall": found.recall,
        "positives": found.positives,
    }
    goal = "best F1" if precision is None else f"precision {precision:g}"
    about = {"goal": goal, "heard": run.hearing.title, "clips": len(run.scored.clips)}
    return save_thresholds(run.model, checkpoint, columns, about=about)
