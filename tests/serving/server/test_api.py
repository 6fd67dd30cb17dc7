"""The API's answers are those of the Recommender, and its schema says what it reads."""

import json

import pytest
from bundles import CATALOGUE, KNOWN, raw
from servers import serving

from llm4sbr.serving import Recommender

SESSIONS = [*raw(KNOWN[:2]), ["B004", "nowhere", "B002"], ["nowhere"], []]


def same(answers, expected):
    for answer, one in zip(answers, expected, strict=True):
        assert answer["item_ids"] == list(one.item_ids)
        assert answer["titles"] == list(one.titles)
        assert answer["scores"] == pytest.approx(one.scores, abs=1e-5)
        assert (answer["ignored"], answer["view"]) == (list(one.ignored), one.view)
        assert answer["reason"] == one.reason


@pytest.mark.parametrize(
    "asked",
    [{}, {"k": 3}, {"seen": False}, {"only": ["B001", "B005", "B009"]}, {"without": ["B002"], "k": 5}],
    ids=str,
)
def test_answers_are_those_of_the_recommender(running, shop, asked):
    """Seen to fail with `seen` left out of the filters."""
    sessions = SESSIONS[:3] if asked.get("k") != 3 else SESSIONS[2:]
    status, found = running.post({"sessions": sessions, **asked})
    assert status == 200
    same(found["recommendations"], Recommender.load(shop).recommend(sessions, **asked))
    assert found["bundle"] == Recommender.load(shop).manifest.sha256[:16]


def test_ids_of_filters_that_the_catalogue_lacks_are_named(running):
    _, found = running.post({"sessions": [["B001"]], "only": ["B002", "x"], "without": ["y"]})
    assert found["unknown"] == {"only": ["x"], "without": ["y"]}
    assert found["recommendations"][0]["item_ids"] == ["B002"]


def test_items_are_found_by_id_and_by_title(running):
    assert running.get("/v1/items/B003") == (200, {"id": "B003", "title": "Soap 2"})
    status, found = running.get("/v1/items?query=sOAP%202&limit=1")
    assert (status, found["items"]) == (200, [{"id": "B003", "title": "Soap 2"}])
    assert found["total"] == sum("Soap 2" in title for title in CATALOGUE.titles)
    assert running.get("/v1/items?query=2%20%20soap")[1] == running.get("/v1/items?query=Soap%202")[1]
    assert running.get("/v1/items?query=soap%20nothing")[1]["total"] == 0
    assert running.get("/v1/items?limit=2")[1]["total"] == CATALOGUE.num_items
    found = running.get("/v1/items?query=B003&limit=1")[1]
    assert (found["total"], found["items"]) == (1, [{"id": "B003", "title": "Soap 2"}])


def test_state_and_metrics(running):
    """Views are counted by where they come from."""
    before = {
        view: running.metric(f'llm4sbr_session_views_total{{view="{view}"}}') for view in ("known", "absent")
    }
    assert running.post({"sessions": [*raw(KNOWN[:1]), ["B004"], ["nowhere"]]})[0] == 200
    assert running.get("/health") == (200, {"status": "alive"})
    status, ready = running.get("/ready")
    assert (status, ready["status"], ready["items"]) == (200, "ready", len(CATALOGUE.item_ids))
    assert running.metric('llm4sbr_session_views_total{view="known"}') == before["known"] + 1
    assert running.metric('llm4sbr_session_views_total{view="absent"}') == before["absent"] + 2
    assert running.metric(f'llm4sbr_bundle{{fingerprint="{ready["bundle"]}"') == 1
    assert running.metric('llm4sbr_requests_total{route="/v1/recommend",status="200"}') >= 1
    assert running.metric('llm4sbr_request_seconds_count{route="/v1/recommend"}') >= 1
    assert running.metric("llm4sbr_batch_sessions_count") >= 1


def test_the_schema_has_the_limits_and_every_route(running):
    status, found = running.get("/openapi.json")
    assert (status, found["openapi"]) == (200, "3.1.0")
    asked = found["components"]["schemas"]["RecommendRequest"]
    assert (asked["additionalProperties"], asked["required"]) == (False, ["sessions"])
    assert asked["properties"]["k"] | {"description": ""} == {
        "type": "integer",
        "minimum": 1,
        "maximum": 50,
        "default": 20,
        "description": "",
    }
    for path, (method,) in found["paths"].items():
        assert running.request(method.upper(), path.replace("{id}", "B001"))[0] not in (404, 405, 500), path


def test_the_log_has_a_line_for_each_request_without_ids(shop, tmp_path):
    with serving(shop, tmp_path) as server:
        server.post({"sessions": [["B001"]]})
        server.post({"sessions": 3})
        assert server.stop() == 0
        lines = [one for one in server.events() if one["event"] == "request"]
        assert [one["status"] for one in lines] == [200, 422]
        assert lines[0]["sessions"] == 1
        assert lines[1]["field"] == "sessions"
        assert "B001" not in server.log.read_text()


def test_the_log_shows_sessions_if_wanted(shop, tmp_path):
    with serving(shop, tmp_path, "--log_sessions", "true") as server:
        server.post({"sessions": [["B001"]]})
        assert server.stop() == 0
        assert next(one for one in server.events() if one["event"] == "request")["clicks"] == [["B001"]]


def test_with_a_key_only_health_and_readiness_are_open(shop, tmp_path):
    """Seen to fail with the check of the key left out."""
    with serving(shop, tmp_path, LLM4SBR_API_KEY="s3cret") as server:
        asked = {"sessions": [["B001"]]}
        assert server.get("/health")[0] == server.get("/ready")[0] == 200
        for wrong in (
            {},
            {"X_API_Key": "s3cre"},
            {"Authorization": "Bearer s3cret2"},
            {"Authorization": "s3cret"},
        ):
            status, found = server.post(asked, **wrong)
            assert (status, found["field"]) == (401, "Authorization")
        for path in ("/v1/items/B001", "/metrics", "/openapi.json", "/nowhere"):
            assert server.request("GET", path)[0] == 401
        assert server.post(asked, Authorization="Bearer s3cret")[0] == 200
        assert server.post(asked, X_API_Key="s3cret")[0] == 200
        assert "s3cret" not in server.log.read_text()
        assert json.loads(server.request("GET", "/openapi.json", headers={"X-API-Key": "s3cret"})[2])[
            "security"
        ]
