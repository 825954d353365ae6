"""Figures for Prometheus."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from sat_jax.events import EventMessage
from sat_jax.live.hub import Hub
from sat_jax.live.outputs import LostSound, Output
from sat_jax.live.session import Session
from sat_jax.live.sinks.sink import QueuedSink

_LAGS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
_STEPS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)


class Metrics:
    """Counts what a hub does. No label names a client."""

    def __init__(self, hub: Hub) -> None:
        """Starts to count."""
        self._hub = hub
        self._registry = CollectorRegistry(auto_describe=True)
        self._lags = Histogram(
            "sat_chunk_lag_seconds",
            "From the arrival of a chunk's last sample to its scores.",
            buckets=_LAGS,
            registry=self._registry,
        )
        self._steps = Histogram(
            "sat_step_seconds", "Steps.", ["rows"], buckets=_STEPS, registry=self._registry
        )
        self._events = Counter(
            "sat_events", "Events that started.", ["label"], registry=self._registry
        )
        self._lost = Counter(
            "sat_lost_sound_seconds", "Sound not scored.", ["reason"], registry=self._registry
        )
        self._registry.register(self)  # type: ignore[arg-type]
        hub.sinks.append(self)

    def tell(self, session: Session, output: Output) -> None:
        """Counts events and lost sound."""
        if isinstance(output, EventMessage) and output.kind == "start":
            self._events.labels(output.label).inc()
        elif isinstance(output, LostSound):
            self._lost.labels(output.reason).inc(output.end - output.start)

    def collect(self) -> Iterator[Metric]:
        """Yields what is counted elsewhere."""
        engine = self._hub.engine
        yield GaugeMetricFamily("sat_streams", "Open streams.", engine.used)
        yield GaugeMetricFamily("sat_streams_capacity", "The most streams.", engine.capacity)
        counts = engine.counts
        yield CounterMetricFamily("sat_chunks", "Scored chunks.", counts.chunks)
        yield CounterMetricFamily("sat_chunks_dropped", "Chunks lost to overload.", counts.dropped)
        yield CounterMetricFamily("sat_streams_rejected", "Streams not taken.", counts.rejected)
        waiting = GaugeMetricFamily("sat_sink_waiting", "Messages to be sent.", labels=["sink"])
        dropped = CounterMetricFamily("sat_sink_dropped", "Messages not sent.", labels=["sink"])
        for sink in self._hub.sinks:
            if isinstance(sink, QueuedSink):
                waiting.add_metric([sink.name], sink.waiting)
                dropped.add_metric([sink.name], sink.dropped)
        yield from (waiting, dropped)

    def text(self) -> bytes:
        """Returns all figures in the text format of Prometheus."""
        counts = self._hub.engine.counts
        # The step thread appends meanwhile.
        for _ in range(len(counts.lags)):
            self._lags.observe(counts.lags.popleft())
        for _ in range(len(counts.steps)):
            rows, seconds = counts.steps.popleft()
            self._steps.labels(str(rows)).observe(seconds)
        return generate_latest(self._registry)
