"""Two sets of views, compared as a person compares them."""

import json

from scripts import run
from shops import write_shop

from llm4sbr.datamodules import SessionDataModule
from llm4sbr.datamodules.rules import SplitBy
from llm4sbr.views import ViewStore, infer_views


def test_a_view_that_knows_the_next_item_is_ahead_of_one_that_does_not(stubs, tmp_path):
    """Seen to fail with the baseline's gains on both sides of the difference."""
    titles = ["rose soap", "lemon oil", "silk brush", "nail polish", "eye liner", "argan cream"]
    titles += ["hair powder", "night shampoo", "bath salt"]
    write_shop(tmp_path, titles)
    data = SessionDataModule(tmp_path, split=SplitBy(by="column"), cache_dir=tmp_path / "cache")
    data.prepare_data()

    def knows(prompt: str) -> str:
        return titles[(titles.index(stubs.last_title(prompt)) + 1) % 9]

    specs = []
    with ViewStore(tmp_path / "store") as store:
        for name, reply in (("knows", knows), ("repeats", stubs.last_title)):
            engine = stubs.StubEngine(reply, name=name)
            summary = infer_views(
                data, store, engine=engine, encoder=stubs.StubEncoder(), r=1, progress=False
            )
            specs.append(f"{name}: '{summary.spec}'")
    out = tmp_path / "out.json"
    words = ["--data", str(tmp_path / "data.yaml"), "--store", str(tmp_path / "store"), "--draws", "100"]
    run(tmp_path, "views", *words, "--specs", f"{{{', '.join(specs)}}}", "--json", str(out))
    told = {row["what"]: row["value"] for row in json.loads(out.read_text())["rows"]}
    assert told["short_term, knows: mrr@20"] == 100
    assert told["short_term, repeats: mrr@20"] < 60
    ahead = told["short_term, knows minus repeats: mrr@20"]
    assert abs(ahead - (100 - told["short_term, repeats: mrr@20"])) < 0.1
