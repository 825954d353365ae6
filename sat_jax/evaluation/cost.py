"""What a way of hearing costs, for the published table."""

from sat_jax.evaluation.results import Cost
from sat_jax.evaluation.run import Run
from sat_jax.profile.measure import Subject, profile_step

MIB = 2.0**20


def measure_cost(run: Run) -> Cost | None:
    """Counts and compiles what gives one answer about one clip; None in clip mode: it has no size.

    Args:
      run: of the model and how it heard.

    Raises:
      SatError: memory is too small.
    """
    hearing = run.hearing
    if hearing.mode == "clip":
        return None
    seconds = hearing.buffer if hearing.mode == "sliding" else hearing.delay
    subject = Subject(name=run.model, config=run.tagger.config, variables=None)
    profile = profile_step(subject, chunk_seconds=seconds)
    cached = profile.tokens.cached if hearing.mode == "stream" else 0
    return Cost(
        is_streaming=cached > 0,
        tokens=f"{profile.tokens.new}/{cached}" if cached else str(profile.tokens.new),
        peak_memory_mib=(profile.temporary_bytes + profile.state_bytes) / MIB,
        gflops=2e-9 * profile.multiply_adds.network,
        parameters=profile.parameters,
    )
