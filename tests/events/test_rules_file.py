"""Files of rules: what they mean, and errors that name the key."""

import pytest

from sat_jax.errors import SatError
from sat_jax.events.rules import Rule
from sat_jax.events.rules_file import read_rules, write_rules
from sat_jax.events.watching import watched_sounds

GOOD = """
[groups]
kitchen = ["*Glass", "Microwave oven"]
[rules.default]
watch = ["kitchen", "Dog"]
min_off = 5
[rules.default.class."Dog"]
on = 0.7
[rules.quiet]
parents = "all"
"""


def test_a_file(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(GOOD)
    rules = read_rules(path)
    labels = ["Glass", "Microwave oven", "Dog", "Music"]
    dog, kitchen = watched_sounds(rules.named(), labels)
    assert (dog.name, dog.rule.on, dog.rule.min_off) == ("Dog", 0.7, 5.0)
    assert (kitchen.name, kitchen.classes, kitchen.rule.on) == ("kitchen", (0, 1), 0.5)
    assert rules.named("quiet").parents == "all"
    with pytest.raises(SatError, match="loud_ones"):
        rules.named("loud_ones")
    path.write_text("")
    assert not read_rules(path).named().watch


def test_written_rules_read_back(tmp_path):
    rules = {
        name: Rule(on=on, off=on / 2, min_on=0.75, min_off=1.25)
        for name, on in (("Dog", 0.3), ('a "b", \\ü\n\t😀', 0.0625))
    }
    path = tmp_path / "rules.toml"
    write_rules(path, rules, about="found\n[here]")
    sounds = watched_sounds(read_rules(path).named(), list(rules))
    assert {sound.name: sound.rule for sound in sounds} == rules


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[rules.default]\nwatc = []", "watc"),
        ("[rules.default]\non = 'x'", "rules.*on"),
        ("[rules.default]\nparents = 'some'", "some"),
        ("[rules.default.class.Dog]\nwatch = []", "watch"),
        ("rules = 3", "rules"),
        ("[rules", "TOML"),
    ],
)
def test_wrong_files(tmp_path, text, named):
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(SatError, match=named) as caught:
        read_rules(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
