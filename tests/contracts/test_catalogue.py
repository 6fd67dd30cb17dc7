"""Items in a fixed order: what is refused, and what content keys tell apart."""

import pickle

import pytest

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.errors import InputError

BEADS = Catalogue(("007", " 7", "🧼"), ("Soap", "Soap", ""))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Catalogue(("a", "b"), ("A",)), "2 item ids but 1 titles"),
        (
            lambda: Catalogue(("a", "b", "a"), ("A", "B", "C")),
            r"duplicate item id in the catalogue \(got 'a'\)",
        ),
        (lambda: BEADS.title(0), r"items are 1\.\.3 \(got 0\)"),
        (lambda: BEADS.title(4), r"items are 1\.\.3 \(got 4\)"),
    ],
)
def test_what_is_no_catalogue_and_no_item_is_refused(make, told):
    with pytest.raises(InputError, match=told):
        make()


def test_keys_are_of_ids_and_titles_in_order_and_of_nothing_else():
    """Seen to fail with ids and titles joined without their lengths."""
    assert BEADS.index == {"007": 1, " 7": 2, "🧼": 3}
    same = Catalogue(BEADS.item_ids, BEADS.titles)
    assert (same.fingerprint, same.session_key((3, 1))) == (BEADS.fingerprint, BEADS.session_key((3, 1)))
    others = [
        Catalogue(("007", " 7", "🧼"), ("Soap", "Soap", " ")),
        Catalogue(("07", " 7", "🧼"), ("Soap", "Soap", "")),
        Catalogue((" 7", "007", "🧼"), ("Soap", "Soap", "")),
        Catalogue(("007S", " 7", "🧼"), ("oap", "Soap", "")),
    ]
    assert len({one.fingerprint for one in (BEADS, *others)}) == 5
    moved = Catalogue(("🧼", "007"), ("", "Soap"))  # a session's key is of its own items alone
    assert moved.session_key((1, 2)) == BEADS.session_key((3, 1)) != BEADS.session_key((1, 3))
    assert len(BEADS.session_key(())) == 16


def test_an_error_keeps_its_parts_on_the_way_from_a_worker():
    """And shows 80 characters of a value."""
    error = InputError("wrong", path="a.csv", row=3, value="x" * 100, hint="Mend it")
    assert str(error) == f"a.csv: row 3: wrong (got '{'x' * 76}...). Mend it"
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), vars(again)) == (str(error), vars(error))
