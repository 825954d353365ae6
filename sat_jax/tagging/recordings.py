"""Tags a list of recordings: the work of ``sat-jax tag``."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

from sat_jax.errors import SatError
from sat_jax.runtime.devices import usable_cores
from sat_jax.runtime.files import open_output
from sat_jax.runtime.live_input import input_is_ended
from sat_jax.runtime.threads import map_ahead
from sat_jax.tagger import Tagger
from sat_jax.tagging.formats import FORMATS
from sat_jax.tagging.one_recording import OneRecording
from sat_jax.tagging.options import Recording, TaggingOptions
from sat_jax.tagging.outputs import ResultFile, SharedText, TagsPlace
from sat_jax.tagging.progress import ProgressBar, Summary, writes_files
from sat_jax.tagging.result_paths import ResultPaths, result_paths
from sat_jax.tagging.selections import EventSelection, make_selection
from sat_jax.tagging.writers import OutputError, write_now
from sat_jax.tags import TagSelection

_Job = tuple[Recording, ResultPaths, TagsPlace | None]
"""A recording, its files, and where its tags go; None for one that is skipped."""

_AHEAD = 64
"""Recordings that are tagged, or whose text waits, while an earlier one is not finished."""


def tag_recordings(
    tagger: Tagger,
    recordings: Sequence[Recording],
    options: TaggingOptions,
    *,
    report: Callable[[object], None],
) -> Summary:
    """Tags recordings, several at once; each starts with a fresh cache.

    Results and errors come in the order of the recordings, and are those of each recording alone,
    to the last bit. A recording that fails does not stop the others. A damaged one is tagged up to
    the damage.

    Args:
      tagger: the model.
      recordings: what to tag.
      options: the settings, checked by `sat_jax.tagging.checks`.
      report: receives the error of each recording that failed, and warnings at once. Of several
        recordings it also receives the summary, if tags go to files or standard error is a
        terminal.

    Returns:
      How many were tagged, skipped, and failed.

    Raises:
      SatError: the output cannot be written.
      KeyboardInterrupt: the user stopped the run; all results so far are written.
    """
    selection = make_selection(tagger, options)
    rate = tagger.config.frontend.sample_rate
    stopped = False
    with (
        contextlib.suppress(_NothingTagged),
        _open_text(options) as text,
        ProgressBar(recordings, options, sample_rate=rate) as progress,
    ):
        one_at_a_time = threading.Lock()

        def tell(message: object) -> None:
            with one_at_a_time, progress.paused():
                report(message)

        run = _Run(tagger, options, selection, text, progress, warn=tell)
        try:
            with contextlib.closing(run.errors(recordings)) as errors:
                for error in filter(None, errors):
                    tell(error)
        except KeyboardInterrupt:
            stopped = True
        if text:
            text.end_all()
        if not run.summary.sound_seconds:
            raise _NothingTagged
    if len(recordings) > 1 and (writes_files(options) or sys.stderr.isatty()):
        report(run.summary)
    if stopped:
        raise KeyboardInterrupt
    return run.summary


class _NothingTagged(Exception):
    """There is nothing to write, so an existing output file stays as it is."""


@contextlib.contextmanager
def _open_text(options: TaggingOptions) -> Iterator[SharedText | None]:
    """Opens the text that holds all recordings, if there is one."""
    if options.output_dir:
        yield None
        return
    with open_output(options.output) as stream:
        write_now(stream, FORMATS[options.format_name].header)
        yield SharedText(stream)


class _Run:
    """Tags recordings in threads, each as a stream of its own.

    Batches of streams would be faster still, but their answers differ in the last bits.
    """

    def __init__(
        self,
        tagger: Tagger,
        options: TaggingOptions,
        selection: TagSelection | EventSelection,
        text: SharedText | None,
        progress: ProgressBar,
        *,
        warn: Callable[[str], None],
    ) -> None:
        self.summary = Summary()
        self._tagger = tagger
        self._options = options
        self._selection = selection
        self._text = text
        self._progress = progress
        self._warn = warn
        self._stop = threading.Event()

    def errors(self, recordings: Sequence[Recording]) -> Generator[SatError | None]:
        """Tags all; yields the error of each recording in order, None for one without."""
        jobs = self._options.jobs or usable_cores()
        todo = self._todo(recordings)
        if jobs == 1 or len(recordings) == 1 or any(each.is_live for each in recordings):
            # Ctrl-C reaches this thread only, and ends a wait for live sound here.
            results: Iterable[SatError | None] = map(self._tag, todo)
        else:
            results = map_ahead(self._tag, todo, workers=jobs, ahead=_AHEAD, stop=self._stop)
        for error in results:
            if self._text:
                self._text.end_first()
            yield error

    def _todo(self, recordings: Sequence[Recording]) -> Iterator[_Job]:
        all_paths = result_paths(self._options, recordings)
        for recording, paths in zip(recordings, all_paths, strict=True):
            if input_is_ended():
                return
            if self._text:
                yield recording, paths, self._text.add()
            elif paths.tags:
                is_done = self._options.skip_existing and os.path.exists(paths.tags)
                yield recording, paths, None if is_done else ResultFile(paths.tags)

    def _tag(self, job: _Job) -> SatError | None:
        recording, paths, place = job
        if place is None:
            self.summary.add(skipped=1)
            self._progress.skip()
            return None
        one = OneRecording(
            self._tagger,
            recording,
            self._options,
            self._selection,
            progress=self._progress,
            warn=self._warn,
            stop=self._stop,
        )
        try:
            one.tag(place, paths)
        except OutputError:
            raise
        except SatError as error:
            self.summary.add(failed=1, sound_seconds=one.seconds)
            return error
        except KeyboardInterrupt:
            self.summary.add(sound_seconds=one.seconds)
            raise
        self.summary.add(tagged=1, sound_seconds=one.seconds)
        return None
