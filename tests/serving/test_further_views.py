"""Views that are added to a bundle's are looked up as if they had been exported with it."""

from dataclasses import replace

import pytest
import torch
from bundles import CATALOGUE, KNOWN, SESSIONS, SPEC, known_rows, only_long_term, titles

from llm4sbr.contracts.errors import InputError
from llm4sbr.serving.known_views import SessionViews, pack_views
from llm4sbr.testing import make_batch

NEW = [*SESSIONS[1::2], KNOWN[0]]  # the bundle's own view of the last one goes first
KEYS = [CATALOGUE.session_key(session) for session in SESSIONS]


def packed(sessions, views):
    return pack_views([CATALOGUE.session_key(session) for session in sessions], views)


def sparse():
    ids, weights = known_rows()
    return {"ids": ids.short(), "weights": weights}, {"ids": ids.flip(0), "weights": weights.flip(0)}


def dense():
    drawn = torch.randn(2, 3, 2, titles()[0].size(1), generator=torch.Generator().manual_seed(5))
    drawn[1, 1, 0] = 0
    return {"vectors": drawn[0]}, {"vectors": drawn[1]}


@pytest.mark.parametrize("rows", [sparse, dense])
@pytest.mark.parametrize("spec", [SPEC, only_long_term(), replace(SPEC, fallback="titles", norms=(2.0, 3.0))])
def test_they_equal_exported_ones(rows, spec):
    own, further = rows()
    served = SessionViews(spec, titles(), packed(KNOWN, own))
    found = served.with_further([CATALOGUE.session_key(session) for session in NEW], further)
    joined = {name: torch.cat((part, further[name][:2].to(part.dtype))) for name, part in own.items()}
    expected = SessionViews(spec, titles(), packed([*KNOWN, *NEW[:2]], joined))
    batch, states = found(make_batch(SESSIONS), KEYS)
    other, other_states = expected(make_batch(SESSIONS), KEYS)
    assert states == other_states
    assert torch.equal(batch.views, other.views)
    assert torch.equal(batch.view_mask, other.view_mask)
    again, before = found.with_further([], {name: part[:0] for name, part in further.items()}), served
    assert again(make_batch(SESSIONS), KEYS)[1] == before(make_batch(SESSIONS), KEYS)[1]


def test_rows_that_do_not_fit_are_refused():
    own, further = sparse()
    served = SessionViews(SPEC, titles(), packed(KNOWN, own))
    keys = [CATALOGUE.session_key(session) for session in NEW]
    beyond = further["ids"] + (1 << 16)  # as int16 they would be items of the catalogue
    with pytest.raises(InputError, match="beyond the catalogue"):
        served.with_further(keys, further | {"ids": beyond})
    with pytest.raises(InputError, match="another shape"):
        served.with_further(keys, {name: part[..., :2] for name, part in further.items()})
    with pytest.raises(InputError, match="other parts"):
        served.with_further(keys, dense()[1])
    from_titles = SessionViews(replace(SPEC, source="titles"), titles(), None)
    with pytest.raises(InputError, match="titles alone"):
        from_titles.with_further(keys, further)
