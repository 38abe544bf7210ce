"""Every law has a test, and docs/behaviours.md says which."""

from __future__ import annotations

from textwrap import dedent

import pytest

from tools import behaviours
from tools.behaviours import PAGE, Laws, ids_of, page, problems, read_laws


def test_every_law_of_the_parts_built_has_a_test() -> None:
    assert problems(read_laws(), behaviours.tests_by_law()) == []


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(read_laws(), behaviours.tests_by_law()), "run `make behaviours`"


@pytest.mark.parametrize(
    ("name", "docstring", "laws"),
    [
        ("test_b37_saving", "", {"B37"}),
        ("test_b1_b2_loading", "", {"B1", "B2"}),
        ("test_b4_following", "B37, B1: why.", {"B4", "B37", "B1"}),
        ("test_saving", "B26.", {"B26"}),
        ("test_saving", "B26 and B27: both.", {"B26", "B27"}),
        ("test_saving", "Unlike B26, nothing is equal.", set()),
        ("test_saving", "B26 says more.", set()),
        ("test_big_batches", "", set()),
    ],
)
def test_a_test_belongs_to_the_laws_in_its_name_and_at_the_beginning_of_its_docstring(
    name: str, docstring: str, laws: set[str]
) -> None:
    assert ids_of(name, docstring) == laws


def test_classes_and_modules_pass_their_laws_on_to_their_tests() -> None:
    source = '''
        """B1: all of this file."""
        def test_first(): ...
        def helper(): ...
        class TestMore:
            """B2."""
            def test_b3_second(self): ...
        def test_last(): ...
    '''
    assert list(behaviours.tests_in(dedent(source))) == [
        ("test_first", {"B1"}),
        ("TestMore::test_b3_second", {"B1", "B2", "B3"}),
        ("test_last", {"B1"}),
    ]


LAWS = Laws({"Physics": {"B1": "Apples fall.", "B2": "Energy stays.", "B3": "Time travels."}}, frozenset({"B3"}), {})


def test_the_page_names_the_tests_of_each_law_and_what_is_not_built() -> None:
    written = page(LAWS, {"B1": ["tests/test_a.py::test_b1_pear", "tests/test_b.py::test_b1_plum"]})
    first = (
        "[`tests/test_a.py::test_b1_pear`](../tests/test_a.py)<br>[`tests/test_b.py::test_b1_plum`](../tests/test_b.py)"
    )
    assert f"| B1 | Apples fall. | {first} |" in written
    assert "| B2 | Energy stays. | **none** |" in written
    assert "| B3 | Time travels. | *not built yet* |" in written


def test_a_law_without_a_test_and_a_test_of_no_law_are_problems() -> None:
    found = problems(LAWS, {"B1": ["tests/test_a.py::test_b1_pear"], "B77": ["tests/test_c.py::test_b77_odd"]})
    assert found == [
        "B2 has no test. Name one test_b2_...",
        "tests/test_c.py::test_b77_odd names B77, which is no law: see tools/laws.toml.",
    ]
