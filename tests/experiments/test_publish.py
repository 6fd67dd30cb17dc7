"""The tables of both READMEs are what the results say, and a table that is not is told."""

import json

import pytest
from scripts import EXPERIMENTS, fails

from experiments.study import markdown, publish, summary


def lift(relative, *interval):
    return {"relative": relative, "seeds": [0], "interval": list(interval) or None}


@pytest.fixture
def results(tmp_path):
    """A bare and a wrapped SR-GNN and a baseline, as `table` leaves them."""

    def row(backbone, variant, value, seeds, lifts=None):
        spread = None if len(seeds) == 1 else 0.25
        found = {
            metric: {"mean": value, "std": spread}
            for metric in ("recall@5", "recall@20", "mrr@20", "ndcg@20")
        }
        return {"backbone": backbone, "variant": variant, "seeds": seeds, "lift": lifts or {}, **found}

    wins = {"recall@5": lift(0.1, 0.02, 0.2), "recall@20": lift(-0.01, -0.05, 0.03), "mrr@20": lift(0.5)}
    rows = [
        row("sequential-rules", "bare", 4.0, [0]),
        row("SRGNN", "titles", 3.336, [0, 1, 2], wins),
        row("SRGNN", "bare", 3.0, [0, 1, 2]),
    ]
    (tmp_path / "protocol-beauty.json").write_text(json.dumps({"details": rows}))
    one = [row("NARM", "titles", 2.0, [0], wins), row("NARM", "bare", 1.0, [0])]
    (tmp_path / "protocol-beauty-one-seed.json").write_text(json.dumps({"details": one}))
    return tmp_path


TABLE = """\
| {examples} | Recall@5 | Recall@20 | MRR@20 | NDCG@20 |
|---|---|---|---|---|
| SR-GNN, bare | 3.00 ± 0.25 | 3.00 ± 0.25 | 3.00 ± 0.25 | 3.00 ± 0.25 |
| SR-GNN, wrapped, `titles` | 3.34 ± 0.25 | 3.34 ± 0.25 | 3.34 ± 0.25 | 3.34 ± 0.25 |
| lift | **+10.0 % [+2.0, +20.0]** | −1.0 % [−5.0, +3.0] | +50.0 % |  |
| NARM, bare (one seed) | 1.00 | 1.00 | 1.00 | 1.00 |
| NARM, wrapped, `titles` (one seed) | 2.00 | 2.00 | 2.00 | 2.00 |
| lift | **+10.0 % [+2.0, +20.0]** | −1.0 % [−5.0, +3.0] | +50.0 % |  |
| *sequential rules* | **4.00** | **4.00** | **4.00** | **4.00** |
"""


def test_a_table_is_written_where_its_name_stands(results, tmp_path, capsys):
    """Seen to fail with rows in the order of the JSON, and with an interval that holds 0 in bold."""
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table protocol beauty -->\n| old |\n<!-- end -->\nafter\n")
    command = ["publish", "--files", f"[{page}]", "--results", str(results)]
    assert "differ from the results" in fails(tmp_path, *command, "--check")
    assert "| old |" in page.read_text()
    assert publish.publish(files=[page], results=results) == 0
    assert capsys.readouterr().out == f"{page}: renewed\n"
    table = TABLE.format(examples=markdown.DATA["beauty"])
    assert page.read_text() == f"before\n<!-- table protocol beauty -->\n{table}<!-- end -->\nafter\n"
    assert publish.publish(check=True, files=[page], results=results) == 0
    assert capsys.readouterr() == ("", "")  # nothing differs, nothing is written


@pytest.mark.parametrize(("kind", "told"), [("rules", "rules"), ("repeats", "repeat-explore")])
def test_models_with_something_beside_them_stand_under_those_without(results, kind, told):
    """Seen to fail with the lift over bare with rules in the place of that without."""
    plain = json.loads((results / "protocol-beauty.json").read_text())["details"]
    wins = [
        {metric: lift(size) for metric in ("recall@5", "recall@20", "mrr@20")}
        for size in (0.1, 0.2, 0.3, 0.4)
    ]
    wrapped, bare = ({**row, "backbone": f"SRGNN+{kind}", "seeds": [0, 1]} for row in plain[1:])
    for name, rows in (
        ("", [wrapped | {"lift": wins[0]}, bare]),
        ("-vs-without", [*plain[1:], wrapped | {"lift": wins[1]}, bare | {"lift": wins[3]}]),
        ("-vs-rules", [wrapped | {"lift": wins[2]}, bare, plain[0]]),
    ):
        (results / f"protocol-beauty-{kind}{name}.json").write_text(json.dumps({"details": rows}))
    lines = publish.renewed(f"<!-- table {kind} beauty -->\n<!-- end -->", results).splitlines()
    assert [row.split(" | ")[0] for row in lines[3:-1]] == [
        "| *sequential rules*",
        "| SR-GNN, bare",
        "| SR-GNN, wrapped, `titles`",
        f"| SR-GNN with {told}, bare (two seeds)",
        f"| SR-GNN with {told}, wrapped, `titles` (two seeds)",
        f"| lift: bare with {told}, over bare without",
        f"| lift: wrapped over bare, both with {told}",
        f"| lift: wrapped with {told}, over bare without",
        f"| lift: wrapped with {told}, over the sequential rules alone",
    ]
    assert [row.split(" | ")[1] for row in lines[-5:-1]] == ["+40.0 %", "+10.0 %", "+20.0 %", "+30.0 %"]


def test_pairs_of_one_seed_are_told_apart_and_averaged_with_the_others(results):
    """Seen to fail with one average over all; summary's groups are the same."""

    def gains(backbone, data, size, *seeds):
        found = {
            metric: lift(size) | {"seeds": list(seeds)} for metric in ("recall@5", "recall@20", "mrr@20")
        }
        return {"backbone": backbone, "variant": "titles", "data": data, **found}

    rows = [
        gains("SRGNN", "protocol-beauty", 0.1, 0, 1, 2),
        gains("SRGNN", "protocol-ml-100k", 0.2, 0, 1, 2),
        gains("NARM", "protocol-beauty-one-seed", 0.3, 0),
    ]
    (results / "lifts.json").write_text(json.dumps({"details": rows}))
    for row in rows[:2]:
        row["recall@5"]["interval_with_seeds"] = row["mrr@20"]["interval_with_seeds"] = [0.05, 0.3]
        row["recall@20"]["interval_with_seeds"] = [-0.1, 0.4]
    (results / "lifts.json").write_text(json.dumps({"details": rows}))
    lines = publish.renewed("<!-- table seeds -->\n<!-- end -->", results).splitlines()
    assert len(lines) == 6  # those of one seed have no such interval
    assert "| **+10.0 % [+5.0, +30.0]** | +10.0 % [−10.0, +40.0] |" in lines[3]

    told = publish.renewed("<!-- table average -->\n<!-- end -->", results)
    assert "over 2 pairs of backbone and data, three seeds each: +15.0 % of Recall@5" in told
    assert "with those of one seed, 3 pairs: +20.0 % of Recall@5" in told
    assert summary.averaged(rows) == {"titles": rows[:2], "titles, with those of one seed": rows}


def test_the_small_table_has_averages_and_the_strongest_backbone(results):
    """Seen to fail with the average of the tuned over all, and with the weakest backbone as the strongest."""

    def gains(backbone, size, *seeds):
        found = {metric: lift(size) | {"seeds": list(seeds)} for metric in markdown.LIFTED}
        return {"backbone": backbone, "variant": "titles", "data": "protocol-beauty", **found}

    rows = [gains("SRGNN", 0.1, 0, 1, 2), gains("NARM", 0.3, 0)]
    (results / "lifts.json").write_text(json.dumps({"details": rows}))
    plain = json.loads((results / "protocol-beauty.json").read_text())["details"]
    beside = plain[1] | {"backbone": "SRGNN+repeats", "lift": {one: lift(0.2) for one in markdown.LIFTED}}
    (results / "protocol-beauty-repeats.json").write_text(json.dumps({"details": [beside]}))
    lines = publish.renewed("<!-- table brief -->\n<!-- end -->", results).splitlines()
    assert lines[3:-1] == [
        "| Beauty: average of 1 tuned backbones |" + " +10.0 % |" * 3,
        "| Beauty: average of 2 backbones, with those of one seed |" + " +20.0 % |" * 3,
        "| Beauty: SR-GNN |" + " +10.0 % |" * 3,
        "| Beauty: SR-GNN, both with `RepeatExplore` |" + " +20.0 % |" * 3,
        "| Beauty: the strongest, SR-GNN |" + " +10.0 % |" * 3,
    ]


def test_what_is_lost_to_repeated_items_stands_model_by_model(results):
    """Seen to fail with both columns of a metric changed."""

    def row(size):
        names = ("recall@5", "recall@20", "mrr@20")
        return {how: dict.fromkeys(names, size + more) for how, more in (("kept", 0.0), ("barred", 0.05))}

    rows = [
        {"study": "protocol-ml-100k-one-seed", "backbone": "NARM", "variant": "bare", **row(0.1)},
        {"study": "protocol-beauty-repeats", "backbone": "NARM+repeats", "variant": "titles", **row(0.3)},
        {"study": "protocol-beauty-repeats", "backbone": "NARM+repeats", "variant": "bare", **row(0.2)},
    ]
    (results / "repeats.json").write_text(json.dumps({"details": rows}))
    lines = publish.renewed("<!-- table repeats -->\n<!-- end -->", results).splitlines()
    assert lines[3:-1] == [
        "| Beauty, NARM, bare with repeat-explore |" + " 20.00 | 25.00 |" * 3,
        "| Beauty, NARM, wrapped with repeat-explore |" + " 30.00 | 35.00 |" * 3,
        "| MovieLens 100K, NARM, bare |" + " 10.00 | 15.00 |" * 3,
    ]


def test_a_table_without_a_maker_or_an_end_is_refused(results):
    for text in ("<!-- table nothing -->\n<!-- end -->", "<!-- table cost -->\n| a |"):
        with pytest.raises(ValueError, match="table"):
            publish.renewed(text, results)


def test_the_readmes_say_what_the_results_say():
    """No figure of their tables is typed by hand."""
    for path in publish.FILES:
        text = path.read_text()
        assert publish.BLOCK.search(text), path
        assert publish.renewed(text, EXPERIMENTS / "results") == text, "run: python -m experiments publish"
