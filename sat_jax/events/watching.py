"""What to watch: settings for classes and groups, and the sounds that a model can tell by them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from sat_jax.errors import SatError
from sat_jax.events.groups import GROUPS
from sat_jax.events.rules import Rule
from sat_jax.labels import audioset_ids, classes_above, select_classes

LOUD = "loud"
"""Watched by this name, any sound of more than -20 dB is an event, whatever it is."""

_LOUD_RULE = {"on": 0.1, "off": 0.05}
"""-20 and -26 dB, as root mean square; 1 is full scale."""

_UNWATCHED = ("Silence", "*Channel, environment and background")
"""What tells little about what happens, unless somebody asks for it."""

Parents = Literal["fold", "all"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watch:
    """What to watch, and when it counts as heard.

    Attributes:
      watch: classes, given as for `sat_jax.labels.select_classes`, names of groups, or "loud";
        empty for all classes but silence and kinds of background.
      without: classes that are not watched.
      parents: "fold" does not tell a class while one below it is told; "all" tells each class.
      rule: settings of all sounds, by the names of `Rule`'s attributes. Without "on", each class
        has the model's own threshold, or 0.5.
      by_name: further settings of single classes and groups, by their names.
      groups: classes of each group, beside those of `sat_jax.events.groups`.
    """

    watch: Sequence[str] = ()
    without: Sequence[str] = ()
    parents: Parents = "fold"
    rule: Mapping[str, float] = dataclasses.field(default_factory=dict)
    by_name: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    groups: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchedSound:
    """A class or a group to follow.

    Attributes:
      name: display name.
      key: index of the class, or the group's name; part of an event's id.
      classes: indices of the classes whose highest score counts; none for "loud".
      mid: AudioSet's id of a class; "" for groups and other classes.
      above: names of the watched classes above it.
      rule: when it counts as heard.
    """

    name: str
    key: str
    classes: tuple[int, ...]
    mid: str
    above: tuple[str, ...]
    rule: Rule

    @property
    def index(self) -> int | None:
        """The class's index; None for a group."""
        return int(self.key) if self.key.isdecimal() else None


def watched_sounds(
    watch: Watch, labels: Sequence[str], thresholds: np.ndarray | None = None
) -> tuple[WatchedSound, ...]:
    """Returns the sounds to follow; each class comes after all classes below it.

    Args:
      watch: what to watch.
      labels: [y] names of the model's classes.
      thresholds: float [y], the model's own. A class with a threshold of 1 can't be told, and is
        watched only if `watch` has an "on" for it.

    Raises:
      SatError: a name or a setting is unknown, a value is out of range, or nothing can be watched.
    """
    if watch.parents not in get_args(Parents):
        raise SatError(f"parents={watch.parents!r}: use fold or all")
    _check_groups(watch, labels)
    if watch.rule:
        _make_rule(watch.rule, "all sounds")
    groups = {**GROUPS, **watch.groups}
    wanted_groups = [name for name in watch.watch if name in groups]
    own = [name for name in watch.watch if name not in groups and name != LOUD]
    indices: Sequence[int] = ()
    if own:
        indices = select_classes(labels, only=own, without=watch.without)
    elif not watch.watch:
        known = [name for name in _UNWATCHED if _is_known(labels, name)]
        indices = select_classes(labels, without=[*known, *watch.without])
    _check_names(watch, labels, [*wanted_groups, LOUD])
    sounds = [
        *_watch_classes(watch, labels, indices, thresholds),
        *(_watch_group(watch, name, groups[name], labels, thresholds) for name in wanted_groups),
    ]
    if LOUD in watch.watch:
        rule = _make_rule({**_LOUD_RULE, **watch.by_name.get(LOUD, {})}, LOUD)
        sounds.append(WatchedSound(name=LOUD, key=LOUD, classes=(), mid="", above=(), rule=rule))
    if not sounds:
        raise SatError(
            "nothing to watch: the model's thresholds rule out all these classes; set on for them"
        )
    return tuple(sounds)


def _watch_classes(
    watch: Watch,
    labels: Sequence[str],
    indices: Sequence[int],
    thresholds: np.ndarray | None,
) -> list[WatchedSound]:
    mids, above, sounds = audioset_ids(labels), classes_above(labels), []
    rules = {index: _class_rule(watch, labels[index], index, thresholds) for index in indices}
    watched = {index for index, rule in rules.items() if rule}
    for index in sorted(watched, key=lambda index: -len(above[index])):
        rule = rules[index]
        assert rule is not None
        names = tuple(labels[i] for i in above[index] if i in watched)
        sounds.append(
            WatchedSound(
                name=labels[index],
                key=str(index),
                classes=(index,),
                mid=mids[index],
                above=names if watch.parents == "fold" else (),
                rule=rule,
            )
        )
    return sounds


def _watch_group(
    watch: Watch,
    name: str,
    members: Sequence[str],
    labels: Sequence[str],
    thresholds: np.ndarray | None,
) -> WatchedSound:
    # A model with classes of its own may have some of a group.
    known = [member for member in members if _is_known(labels, member)]
    if not known:
        raise SatError(f"the model has no class of the group {name}: leave it out")
    classes = select_classes(labels, only=known)
    settings = {**watch.rule, **watch.by_name.get(name, {})}
    if "on" not in settings and thresholds is not None:
        able = [index for index in classes if thresholds[index] < 1.0]
        classes = tuple(able) or classes
        settings["on"] = min((float(thresholds[index]) for index in able), default=0.5)
    rule = _make_rule(settings, name)
    return WatchedSound(name=name, key=name, classes=classes, mid="", above=(), rule=rule)


def _class_rule(watch: Watch, label: str, index: int, thresholds: np.ndarray | None) -> Rule | None:
    """Returns the rule of a class, None if its threshold says that it can't be told."""
    settings = {**watch.rule, **watch.by_name.get(label, {})}
    if "on" not in settings and thresholds is not None:
        if not 0.0 < thresholds[index] < 1.0:
            return None
        settings["on"] = float(thresholds[index])
    return _make_rule(settings, label)


def _make_rule(settings: Mapping[str, float], name: str) -> Rule:
    known = [field.name for field in dataclasses.fields(Rule)]
    if unknown := [key for key in settings if key not in known]:
        raise SatError(f"rule of {name}: unknown setting {unknown[0]}: use {', '.join(known)}")
    try:
        return Rule(**dict(settings))  # type: ignore[arg-type]  # "smooth" is checked there.
    except SatError as error:
        raise SatError(f"rule of {name}: {error}") from error


def _check_names(watch: Watch, labels: Sequence[str], others: Sequence[str]) -> None:
    for name in watch.by_name:
        if name not in others and name not in labels:
            select_classes(labels, only=[name])  # Says what is wrong with it.
            raise SatError(
                f"rule of {name!r}: give one class by its exact name, or a watched group"
            )


def _check_groups(watch: Watch, labels: Sequence[str]) -> None:
    for name, members in watch.groups.items():
        if name in labels or name == LOUD:
            raise SatError(f"groups.{name}: a sound has this name: choose another")
        if not members:
            raise SatError(f"groups.{name}: name its classes")
        try:
            select_classes(labels, only=members)
        except SatError as error:
            raise SatError(f"groups.{name}: {error}") from error


def _is_known(labels: Sequence[str], name: str) -> bool:
    try:
        select_classes(labels, only=[name])
    except SatError:
        return False
    return True
