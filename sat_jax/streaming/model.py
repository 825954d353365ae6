"""A model with its framing: all ways to run it, as pure functions of weights and state."""

import dataclasses
import functools
from typing import cast

import jax
import jax.numpy as jnp

from sat_jax.config import PATCH_SIZE, Aggregation, ModelConfig, Warmup
from sat_jax.errors import SatError
from sat_jax.models.cache import Cache, CacheForm, init_cache
from sat_jax.models.frontend import floor_top_db
from sat_jax.models.transformer import AudioTransformer
from sat_jax.streaming.clip import score_clips
from sat_jax.streaming.ends import Ends, score_ends
from sat_jax.streaming.framing import Framing, chunk_spectrogram
from sat_jax.streaming.pieces import (
    PiecePlan,
    Variables,
    aggregate,
    apply,
    normalize,
    plan_pieces,
    run_pieces,
    to_probs,
    warm_cache,
    zero_past_end,
)
from sat_jax.streaming.state import ModelState, where_streams


@dataclasses.dataclass(frozen=True)
class StreamingModel:
    """A model and how its streams are cut into chunks.

    It holds no weights and no state: every method is a pure function of those it is given,
    compiled by `jax.jit` at its first call. The object is hashable, so it can be a static argument
    of other compiled functions. Within a batch, streams may be at different points and never
    influence each other.

        streams = StreamingModel(config, make_framing(config))
        state = streams.init(variables, 16)
        probs, state = streams.step(variables, window, state)

    Attributes:
      config: the model.
      framing: from `make_framing`.
      embeds: whether the pooled features of each chunk, [d], follow its probabilities [y].
    """

    config: ModelConfig
    framing: Framing
    embeds: bool = False

    def __repr__(self) -> str:
        """Shows the kind of model, the number of classes and the chunk length."""
        seconds = self.framing.hop / self.config.frontend.sample_rate
        kind = "streaming" if self.config.is_streaming else "clip"
        return (
            f"<StreamingModel: {kind} model, {self.config.num_classes} classes, "
            f"{self.framing.kind} framing of {seconds:g} s>"
        )

    @property
    def network(self) -> AudioTransformer:
        """The Flax module."""
        return AudioTransformer(self.config, self.embeds)

    @property
    def num_outputs(self) -> int:
        """Length of a chunk's output: y, or y + d with ``embeds``."""
        return self.config.num_classes + self.embeds * self.config.width

    @functools.partial(jax.jit, static_argnames=("self", "batch_size", "warmup", "cache_form"))
    def init(
        self,
        variables: Variables,
        batch_size: int,
        *,
        warmup: Warmup = "silence",
        cache_form: CacheForm = "kv",
    ) -> ModelState:
        """Returns the state of new streams.

        Args:
          variables: the weights.
          batch_size: b, the number of streams.
          warmup: "silence" fills the cache by one call on silence of the cache's length, as the
            published program does; "none" starts with an empty cache, as training and clip mode do.
          cache_form: see `init_cache`.
        """
        cache = init_cache(self.config, batch_size, cache_form)
        if warmup == "silence" and self.config.is_streaming:
            cache = warm_cache(self.network, variables, cache)
        return ModelState(cache, jnp.full((batch_size,), -jnp.inf, jnp.float32))

    @functools.partial(jax.jit, static_argnums=0)
    def step(
        self,
        variables: Variables,
        window: jax.Array,
        state: ModelState,
        active: jax.Array | None = None,
    ) -> tuple[jax.Array, ModelState]:
        """Scores the next chunk of every stream; `scan` is the same for many steps.

        ``scan(variables, windows, state)`` on [k, b, s] equals k calls of
        ``step(variables, windows[i], state)`` with the state carried along, up to rounding.

        Step 0 and step 1000 are one compiled program: an empty cache is masked, not skipped.

        Args:
          variables: the weights.
          window: float32 [b, s] in [-1, 1], s = framing.window, see `Framing`.
          state: from `init` or the step before.
          active: bool [b]; the others stand still, and their windows may hold any values. None
            means all.

        Returns:
          Probabilities float32 [b, y] of the chunk ([b, y + d] with ``embeds``), zeros for streams
          that stand still; and the next state.

        Raises:
          SatError: the window has another length.
        """
        framing = self.framing
        if window.shape[1] != framing.window:
            raise SatError(
                f"a step takes windows of {framing.window} samples, not {window.shape[1]}: cut "
                "them by the framing"
            )
        spectrogram, peak_db = chunk_spectrogram(
            window, state.peak_db, framing=framing, frontend=self.config.frontend
        )
        normalized = normalize(self.network, variables, spectrogram)
        scores, cache = run_pieces(self.network, variables, normalized, state.cache)
        probs = to_probs(self.config, aggregate(scores, "mean"))
        moved = ModelState(cache, peak_db)
        if active is None:
            return probs, moved
        return jnp.where(active[:, None], probs, 0.0), where_streams(active, moved, state)

    @functools.partial(jax.jit, static_argnums=0)
    def scan(
        self,
        variables: Variables,
        windows: jax.Array,
        state: ModelState,
        active: jax.Array | None = None,
    ) -> tuple[jax.Array, ModelState]:
        """Runs many steps as one program, whose memory does not grow with their number.

        It equals `step` in a loop over the first axis, up to rounding.

        Args:
          variables: the weights.
          windows: float32 [k, b, s], the windows of each step.
          state: before the first step.
          active: bool [k, b], see `step`.

        Returns:
          Probabilities [k, b, y] of the steps, and the state after the last.
        """

        def step(
            state: ModelState, inputs: tuple[jax.Array, jax.Array | None]
        ) -> tuple[ModelState, jax.Array]:
            window, active = inputs
            probs, state = self.step(variables, window, state, active)
            return state, probs

        state, probs = jax.lax.scan(step, state, (windows, active))
        return probs, state

    @functools.partial(jax.jit, static_argnums=0)
    def finish(self, variables: Variables, ends: Ends, state: ModelState) -> jax.Array:
        """Scores what the ends of streams leave over, by one program for ends of any length.

        Args:
          variables: the weights.
          ends: from `sat_jax.streaming.ends.gather_ends`.
          state: after the last step.

        Returns:
          Probabilities float32 [k, b, y]: one chunk with chunk framing, one for each piece with
          seamless framing; zeros where a stream has no such chunk or piece.
        """
        config, framing = self.config, self.framing
        scores = score_ends(
            self.network, variables, ends, state.cache, state.peak_db, framing=framing
        )
        is_scored = (ends.columns > 0).T[:, :, None]  # [k, b, 1]
        if framing.kind == "chunk":
            count = jnp.maximum(is_scored.sum(0), 1)
            scores, is_scored = scores.sum(0)[None] / count, is_scored[:1]
        return jnp.where(is_scored, to_probs(config, scores), 0.0)

    @functools.partial(jax.jit, static_argnums=0, static_argnames=("plan", "aggregation"))
    def clip(
        self,
        variables: Variables,
        waveform: jax.Array,
        num_samples: jax.Array | None = None,
        *,
        plan: PiecePlan | None = None,
        aggregation: Aggregation = "mean",
    ) -> jax.Array:
        """Runs clip mode on a batch of clips.

        Args:
          variables: the weights.
          waveform: float32 [b, s] in [-1, 1], at least one patch.
          num_samples: int32 [b], samples of each clip, zero-padded to s; None if all have s.
          plan: the pieces of every clip; None is `plan_pieces` of all frames.
          aggregation: how the outputs of the pieces become one.

        Returns:
          Probabilities float32 [b, y].
        """
        scores = score_clips(self.network, variables, waveform, num_samples, plan=plan)
        return to_probs(self.config, aggregate(scores, aggregation))

    @functools.partial(jax.jit, static_argnums=0)
    def clip_piece(
        self,
        variables: Variables,
        power_db: jax.Array,
        num_frames: jax.Array,
        peak_db: jax.Array,
        cache: Cache,
    ) -> tuple[jax.Array, Cache]:
        """Scores one piece of clips that are too long for one array, see `score_in_pieces`.

        Args:
          variables: the weights.
          power_db: float32 [b, f, t] from `framed_power_db`.
          num_frames: int32 [b], frames of the piece that are not padding.
          peak_db: float32 [b], the loudest value of each clip.
          cache: after the piece before.

        Returns:
          The model's outputs [b, y], probabilities or logits, and the cache after the piece.
        """
        spectrogram = floor_top_db(power_db, peak_db, self.config.frontend)
        normalized = normalize(self.network, variables, spectrogram)
        return apply(self.network, variables, zero_past_end(normalized, num_frames), cache)

    def state_shape(self, variables: Variables, batch_size: int = 1) -> ModelState:
        """Returns a state's shapes and dtypes, as `jax.ShapeDtypeStruct`, without computing it."""
        init = functools.partial(self.init, batch_size=batch_size, warmup="none")
        return cast(ModelState, jax.eval_shape(init, variables))

    def step_warms_up(self) -> bool:
        """Returns whether a step on silence leaves the same cache as the warm-up.

        Then a start needs one compiled program less. Silence is the same in every frame, so both
        only need one piece with the same number of patches, as every published model has.
        """
        config, framing = self.config, self.framing
        if framing.kind != "chunk" or not config.is_streaming:
            return False
        frames = (config.cache_length + 1, config.frontend.num_frames(framing.hop))
        warmup, step = (plan_pieces(config, each) for each in frames)
        one_piece = all(plan.num_whole == 1 and plan.rest == 0 for plan in (warmup, step))
        return one_piece and warmup.length // PATCH_SIZE == step.length // PATCH_SIZE
