from pathlib import Path

import pytest

from everlearn.config.document import Document, parse, read
from everlearn.core.errors import ConfigError

NESTED = """\
env:
  id: CartPole-v1   # the pole

  wrappers:
    - ClipAction
    - kind: TimeLimit
      max_episode_steps: 9
base: &base {lr: 1, eps: 2}
other:
  <<: *base
  lr: 3
again: *base
"""


def test_every_key_and_entry_has_its_line() -> None:
    values, lines = parse(NESTED, "x")
    assert values["other"] == {"lr": 3, "eps": 2}
    assert lines == {
        ("env",): 1,
        ("env", "id"): 2,
        ("env", "wrappers"): 4,
        ("env", "wrappers", "0"): 5,
        ("env", "wrappers", "1"): 6,
        ("env", "wrappers", "1", "kind"): 6,
        ("env", "wrappers", "1", "max_episode_steps"): 7,
        ("base",): 8,
        ("base", "lr"): 8,
        ("base", "eps"): 8,
        ("other",): 9,
        ("other", "lr"): 11,
        ("other", "eps"): 8,
        ("again",): 12,
        ("again", "lr"): 8,
        ("again", "eps"): 8,
    }


def test_a_complaint_gets_the_line_of_the_longest_path_that_the_file_has() -> None:
    document = Document({}, "run.yaml", {("env",): 1, ("env", "id"): 2})
    assert document.located("env.id: wrong") == "run.yaml, line 2: env.id: wrong"
    assert document.located("env.kwargs.a: wrong") == "run.yaml, line 1: env.kwargs.a: wrong"
    assert document.located("seed: wrong") == "seed: wrong"
    assert document.located("something else") == "something else"


def test_complaints_stand_in_the_order_of_the_file() -> None:
    document = Document({}, "f", {("a",): 9, ("b",): 2})
    assert document.located("a: 1\nc: 2\nb: 3") == "c: 2\nf, line 2: b: 3\nf, line 9: a: 1"


def test_what_was_replaced_is_not_blamed_on_the_file() -> None:
    document = Document({}, "f", {("a",): 1, ("a", "b"): 2, ("a", "b", "c"): 3, ("a", "d"): 4}).without(("a", "b"))
    for path in ("a.b", "a.b.c"):
        assert document.located(f"{path}: wrong") == f"{path}: wrong"
    assert document.located("a.d: wrong") == "f, line 4: a.d: wrong"


def test_only_errors_of_configuration_are_blamed_and_the_cause_is_kept() -> None:
    document = Document({}, "f", {("a",): 1})
    with pytest.raises(ConfigError, match=r"^f, line 1: a: wrong$") as located, document.blamed():
        raise ConfigError("a: wrong")
    assert isinstance(located.value.__cause__, ConfigError)
    with pytest.raises(ValueError, match=r"^a: wrong$"), document.blamed():
        raise ValueError("a: wrong")
    with pytest.raises(ConfigError, match=r"^b: wrong$"), document.blamed():
        raise ConfigError("b: wrong")


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (BOMB, r"line \d: with its aliases replaced it has more than 10,000 entries or 50 levels"),
        ("gamma: &a [*a]", "line 1: with its aliases replaced"),
        ("gamma: &a\n  b: *a", "line 2: with its aliases replaced"),
        ("a: " + "[" * 60 + "]" * 60, "line 1: with its aliases replaced it has more than 10,000 entries or 50 levels"),
        ("a: " + "[" * 5000, "it has more than 50 levels"),
        ("env:\n\tid: x", r"line 2: not valid YAML: found character '\\t' .* Indent with spaces\."),
        ("a: 1\nb: 2\na: 3", "line 3: not valid YAML: found duplicate key"),
        ("a: *b", "line 1: not valid YAML: found undefined alias"),
        ("a: 1\n---\nb: 2", "not valid YAML: but found another document"),
        ("a: 1\nb: 2020-01-01", "line 2: a date stands here.* Put a word in quotes"),
        ("b: !!binary aGVsbG8=", "line 1: something tagged tag:yaml.org,2002:binary"),
        ("a: !!set {x}", "line 1: something tagged"),
        ("a:\n  - !mine 3", "line 2: something tagged !mine"),
        ("# old\n%YAML 1.1\n---\na: 1", "line 2: only YAML 1.2 is read. Remove this line"),
        ("{a: 1}: 2", "line 1: not valid YAML: found unhashable key"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_what_is_not_plain_is_refused_with_its_line(text: str, complaint: str) -> None:
    """Row 21 of the failure modes: duplicate keys, tabs, bombs of aliases, other tags."""
    with pytest.raises(ConfigError, match=rf"^where.*{complaint}"):
        parse(text, "where")


def test_yaml_1_2_may_be_announced() -> None:
    assert parse("%YAML 1.2\n---\na: yes\n", "x")[0] == {"a": "yes"}


def test_aliases_in_measure_are_read() -> None:
    assert parse("a: &a {x: 1}\nb: *a\n", "x")[0] == {"a": {"x": 1}, "b": {"x": 1}}


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match=r"^/dev/zero: it has more than 1,000,000 bytes"):
        read(Path("/dev/zero"))


def test_an_empty_text_is_nothing() -> None:
    assert parse("", "x") == (None, {})
    assert parse("# only this\n", "x") == (None, {})
