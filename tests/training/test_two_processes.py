"""Two gloo processes against one with the same global batch: the same losses, weights and metrics."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from every_backbone import OURS
from one_and_two import one_and_two
from shops import BEADS, PARTS, write_shop

OPTIONS = {"DHCN": {"beta": 0.0}}  # its contrast shuffles sessions within a batch

TEXT = {"TextScores": [2], "ItemTitles": [2]}
SHOWN = ["odd", "one", "bucket", "SRGNN-False", "SRGNN-True"]
# A wrapped model trains its backbone, too. Bare: those that differ in scores, graphs or batch statistics.
BARE_TOO = ("SRGNN", "CORE", "DHCN", "LESSR", "MSGIFSR")
EXACT = [name for name in OURS if name != "LESSR"]  # batch statistics; torch syncs them on GPUs alone


def cases(folder):
    """Shops of which the last batch leaves nothing for the second process, and of which tests are scarce."""
    even = str(write_shop(folder / "even", BEADS, sessions=40, clicks=lambda s: 3, parts=PARTS))
    # 25 training examples: the last of 4 batches has one. 9 to validate, 7 to test; below, one to test
    clicks = lambda s: 2 if s == 4 else 4 - s % 3  # noqa: E731
    odd = write_shop(folder / "odd", BEADS, sessions=21, clicks=clicks, parts=PARTS)
    one = write_shop(folder / "one", BEADS, sessions=6, clicks=lambda s: 3 if s < 5 else 2,
                     parts=("train", "train", "train", "train", "validate", "test"))  # fmt: skip
    made = {
        "odd": {"shop": str(odd), "predict": True},
        "one": {"shop": str(one)},
        "bucket": {"shop": str(odd), "bucket": 2},
        "apart": {"shop": even, "alignment": {"global_batch": False}},
        "dropout": {"shop": even, "model": {"session_dropout": 0.5}},
    }
    for fusion in ("average", "concat", "residual"):
        made[fusion] = {"shop": even, "model": {"fusion": fusion}, "heads": TEXT}
    made["concat"]["heads"] = {**TEXT, "SequentialRules": [1.0]}
    for name in OURS:
        for wrapped in (False, True) if name in BARE_TOO else (True,):
            made[f"{name}-{wrapped}"] = {
                "shop": even, "backbone": name, "wrapped": wrapped, "options": OPTIONS.get(name, {}),
            }  # fmt: skip
    for name in SHOWN:
        made[name]["look"] = True
    return made


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What one process found, and what each of two did."""
    folder = tmp_path_factory.mktemp("two")
    return one_and_two("two_processes.py", folder, json.dumps(cases(folder)))


def names(*more):
    return ["odd", "one", "bucket", *more]


@pytest.mark.parametrize(
    "name",
    names(
        "average",
        "concat",
        "residual",
        *(f"{b}-{w}" for b in EXACT for w in (False, True) if w or b in BARE_TOO),
    ),
)
def test_two_processes_compute_what_one_does(found, name):
    """Losses and weights to rounding, metrics exactly.

    Seen to fail with a sampler that repeats an example to fill up; with losses that are not weighed by the
    examples of each process; and with gathered rows that keep no gradient.
    """
    one, first, second = (process[name] for process in found)
    for process in (first, second):
        assert process["test"] == one["test"]
        assert process["fit"].keys() == one["fit"].keys()
        for metric, value in one["fit"].items():
            assert process["fit"][metric] == pytest.approx(value, rel=1e-4, abs=1e-6), metric
        for weight, value in one["weights"].items():
            torch.testing.assert_close(
                torch.tensor(process["weights"][weight]), torch.tensor(value), rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize("name", names())
def test_every_example_is_trained_on_and_recommended_for_once(found, name):
    """A process that has no more examples trains on a row that counts for nothing."""
    one, first, second = (process[name] for process in found)
    both = sorted(target for target in first["targets"] + second["targets"] if target)
    assert both == sorted(one["targets"])
    assert (0 in second["targets"]) == (name != "one")
    assert set(first["predicted"]) | set(second["predicted"]) == set(one["predicted"])
    alone, together = pl.read_parquet(one["written"]), pl.read_parquet(first["written"])
    assert alone["session_id"].to_list() == together["session_id"].to_list()
    assert alone["item_ids"].to_list() == together["item_ids"].to_list()
    assert not list(Path(one["written"]).parent.glob("*-rank*"))


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_shown_is_of_all_processes_sessions(found, name):
    """Each of them once. Seen to fail with the first process's alone, and with rows that only fill up."""
    one, *both = (process[name] for process in found)
    for process in both:
        assert process["ranks"] == one["ranks"]
        assert [story["session_id"] for story in process["samples"]] == [
            s["session_id"] for s in one["samples"]
        ]
        assert [story["rank"] for story in process["samples"]] == [s["rank"] for s in one["samples"]]
        assert len(process["spaces"]) == len(one["spaces"]) == (6 if name != "SRGNN-False" else 0)
        for mine, theirs in zip(process["spaces"], one["spaces"], strict=True):
            torch.testing.assert_close(torch.tensor(mine), torch.tensor(theirs), rtol=1e-4, atol=1e-5)


def test_a_scarce_test_split_is_counted_exactly(found):
    """One example: the second process has none."""
    one, first, second = (process["one"] for process in found)
    assert len(one["predicted"]) == 1
    assert one["test"] == first["test"] == second["test"]


def test_alignment_of_each_process_apart_is_another_loss(found):
    """So that the comparison above is known to see the difference."""
    one, first, _ = (process["apart"] for process in found)
    assert first["fit"]["train/uniformity"] != pytest.approx(one["fit"]["train/uniformity"], rel=1e-4)


def test_processes_start_alike_and_draw_apart(found):
    """Weights are one model's, dropout masks are not."""
    _, first, second = (process["dropout"] for process in found)
    assert first["weights"] == second["weights"]
    assert first["drawn"] != second["drawn"]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_model_with_batch_statistics_trains_and_ends_alike(found, wrapped):
    _, first, second = (process[f"LESSR-{wrapped}"] for process in found)
    assert first["weights"] == second["weights"]
    assert first["test"] == second["test"]
