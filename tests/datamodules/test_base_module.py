from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import Tensor

from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import SPLITS, Split
from llm4sbr.datamodules import Columns, KCore, SessionDataModule, Sessions, SplitBy

Write = Callable[[str, "str | bytes"], Path]
Content = set[tuple[str, tuple[str, ...], str]]


def content(data: SessionDataModule, split: Split) -> Content:
    """Examples as the shop would tell them: session id, prefix, target."""
    examples, ids = data.examples(split), ("", *data.catalogue.item_ids)
    return {
        (examples.session_id(row), tuple(ids[item] for item in examples.prefix(row)), ids[target])
        for row, target in enumerate(examples.target.tolist())
    }


def session_ids(data: SessionDataModule, split: Split) -> set[str]:
    return set(data.examples(split).session_ids)


def test_num_items_is_known_at_once(shop: Path) -> None:
    assert SessionDataModule(str(shop)).num_items == 30
    assert SessionDataModule(str(shop)).catalogue.titles[3] == "Item, no. 3"


@pytest.mark.parametrize("by", ["temporal", "ratio", "column"])
def test_splits_share_no_session_and_example_index_is_unique(shop: Path, by: str) -> None:
    data = SessionDataModule(str(shop), split=SplitBy(by))  # type: ignore[arg-type]
    kept = [session_ids(data, split) for split in ("train", "validate", "test")]
    assert sum(map(len, kept)) == len(set().union(*kept)) == 60
    assert session_ids(data, "predict") == kept[2]
    position = 0
    for split in SPLITS:
        examples = data.examples(split)
        assert examples.first_index == position
        position += len(examples)


def test_validation_comes_out_of_training_sessions_only(shop: Path) -> None:
    whole = SessionDataModule(str(shop), split=SplitBy("column", val_ratio=0))
    cut = SessionDataModule(str(shop), split=SplitBy("column", val_ratio=0.2))
    assert len(whole.examples("validate")) == 0
    assert content(cut, "train") | content(cut, "validate") == content(whole, "train")
    assert content(cut, "test") == content(whole, "test")


def test_temporal_splits_follow_the_clock(shop: Path) -> None:
    data = SessionDataModule(str(shop))
    number = {split: sorted(int(name[1:]) for name in session_ids(data, split)) for split in SPLITS}
    assert max(number["train"]) < min(number["validate"])
    assert max(number["validate"]) < min(number["test"])


@pytest.mark.parametrize("by", ["temporal", "ratio", "column"])
def test_the_order_of_rows_changes_no_example(shop: Path, by: str) -> None:
    rules = SplitBy(by)  # type: ignore[arg-type]
    before = SessionDataModule(str(shop), split=rules)
    expected = {split: content(before, split) for split in SPLITS}
    file = shop / "events.csv"
    header, *rows = file.read_text().splitlines()
    random.Random(5).shuffle(rows)
    file.write_text("\n".join([header, *rows]))
    after = SessionDataModule(str(shop), split=rules)
    assert after.catalogue == before.catalogue
    for split in SPLITS:
        assert content(after, split) == expected[split]


def test_max_length_keeps_the_latest_clicks(shop: Path) -> None:
    whole, cut = SessionDataModule(str(shop)), SessionDataModule(str(shop), max_length=3)
    assert cut.examples("train").prefixes() == [prefix[-3:] for prefix in whole.examples("train").prefixes()]


def test_last_click_only_and_prefixes_in_training(shop: Path) -> None:
    data = SessionDataModule(str(shop), eval_examples="last")
    test = data.examples("test")
    assert len(test) == len(test.session_ids)
    assert len(data.examples("train")) == len(data.examples("train").clicks) - len(
        data.examples("train").session_ids
    )
    assert len(SessionDataModule(str(shop), examples_per_session="last").examples("test")) == len(test)


def test_items_training_never_saw(write: Write) -> None:
    rows = "".join(f"s{n},{item},{n}{k}\n" for n in range(20) for k, item in enumerate("abc"))
    file = write(
        "d/events.csv", "session_id,item_id,timestamp\n" + rows + "s20,a,300\ns20,new,301\ns20,b,302\n"
    )
    keep = SessionDataModule(str(file.parent), items=None, split=SplitBy("temporal", test_ratio=0.05))
    drop = SplitBy("temporal", test_ratio=0.05, unseen_items="drop")
    assert content(keep, "test") == {("s20", ("a",), "new"), ("s20", ("a", "new"), "b")}
    for dropped in (
        SessionDataModule(str(file.parent), items=None, split=drop),
        SessionDataModule(
            str(file.parent), items=None, split=SplitBy("temporal", test_ratio=0.05), kcore=KCore("train")
        ),
    ):
        assert content(dropped, "test") == {("s20", ("a",), "b")}
        assert dropped.catalogue.item_ids == ("a", "b", "c")


def test_items_that_nobody_clicked_join_the_catalogue_by_choice(write: Write) -> None:
    """Items that a filter dropped do not return with them. Seen to fail with every row of the table kept."""
    clicks = "".join(f"s{n},{item},{n}{k}\n" for n in range(20) for k, item in enumerate("abc"))
    file = write("d/events.csv", "session_id,item_id,timestamp\n" + clicks + "s0,rare,9\n")
    write("d/items.csv", "item_id,title\nnew,New soap\na,A\nb,B\nc,C\nrare,Rare\n")
    left = KCore("all", min_item_clicks=2)
    assert SessionDataModule(str(file.parent), kcore=left).catalogue.item_ids == ("a", "b", "c")
    data = SessionDataModule(str(file.parent), kcore=replace(left, unclicked_items="keep"))
    assert data.catalogue.item_ids == ("new", "a", "b", "c")
    assert data.catalogue.title(1) == "New soap"


def test_missing_titles_warn_once_or_are_an_error(shop: Path) -> None:
    """Items without a row come last, sorted, behind the order of the table."""
    items = shop / "items.csv"
    header, _, _, _, _, _, *rows = items.read_text().splitlines()
    items.write_text("\n".join([header, *reversed(rows)]))
    data = SessionDataModule(str(shop))
    with pytest.warns(
        UserWarning, match="5 clicked items have no row in the items table: i000, i001, i002, i003, i004"
    ) as caught:
        data.prepare_data()
    assert len([warning for warning in caught if "no row" in str(warning.message)]) == 1
    assert data.catalogue.item_ids == tuple(f"i{n:03d}" for n in (*range(29, 4, -1), *range(5)))
    assert data.catalogue.titles[-5:] == ("",) * 5
    with pytest.raises(InputError, match=r"events\.csv: 5 clicked items"):
        SessionDataModule(str(shop), missing_titles="error").prepare_data()


def test_sessions_of_one_click_are_counted(write: Write) -> None:
    file = write("d/events.csv", "session_id,item_id,timestamp\na,x,1\na,y,2\nb,x,3\nc,x,4\nc,x,5\n")
    data = SessionDataModule(
        str(file.parent), items=None, split=SplitBy("temporal", test_ratio=0, val_ratio=0)
    )
    assert (
        "train: 3 sessions, 5 clicks, 2 examples, mean length 1.67, 1 sessions of one click" in data.summary()
    )


def test_a_catalogue_of_one(write: Write) -> None:
    file = write(
        "d/events.csv",
        "session_id,item_id,timestamp\n" + "".join(f"s{n},x,{n}\ns{n},x,{n}\n" for n in range(9)),
    )
    data = SessionDataModule(str(file.parent), items=None)
    assert data.num_items == 1
    assert next(iter(data.train_dataloader())).target.unique().tolist() == [1]


@pytest.mark.parametrize(
    "choice", [{"kcore": KCore("all", min_item_clicks=10_000)}, {"sessions": Sessions("gap", 0.5)}]
)
def test_no_training_example_says_why(shop: Path, choice: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"events\.csv: no training example: of \d+ sessions of \d+ clicks"):
        SessionDataModule(str(shop), **choice).prepare_data()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["max_length", "batch_size", "eval_batch_size"])
def test_choices_out_of_range(name: str) -> None:
    with pytest.raises(InputError, match=name):
        SessionDataModule(**{name: 0})  # type: ignore[arg-type]


def test_new_sessions_to_recommend_for(shop: Path, write: Write) -> None:
    rows = "n1,i001,5\nn1,i000,4\nn2,i005,1\nn3,unknown,1\nn2,unknown,2\n"
    new = write("new.csv", "session_id,item_id,timestamp\n" + rows)
    data = SessionDataModule(str(shop), predict_events=str(new))
    with pytest.warns(
        UserWarning, match=r"2 clicks .* outside the catalogue .* 1 sessions have no other .*: n3"
    ):
        data.prepare_data()
    assert content(data, "predict") == {("n1", ("i000", "i001"), ""), ("n2", ("i005",), "")}
    assert data.examples("predict").target.tolist() == [0, 0]
    assert content(data, "test") == content(SessionDataModule(str(shop)), "test")


def test_predicting_for_test_sessions_takes_them_whole(shop: Path) -> None:
    data = SessionDataModule(str(shop))
    whole = {
        name: (*prefix, target)
        for name, prefix, target in sorted(content(data, "test"), key=lambda row: len(row[1]))
    }
    assert {name: prefix for name, prefix, _ in content(data, "predict")} == whole


class Counter(BoringModel):
    """Counts what a Trainer hands it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, list[int]] = {"train": [], "val": [], "test": [], "predict": []}

    def training_step(self, batch: SessionBatch, batch_idx: int) -> Tensor:
        self.seen["train"] += batch.example_index.tolist()
        return self.layer(torch.ones(1, 32)).sum()

    def validation_step(self, batch: SessionBatch, batch_idx: int) -> None:
        self.seen["val"] += batch.example_index.tolist()

    def test_step(self, batch: SessionBatch, batch_idx: int) -> None:
        self.seen["test"] += batch.example_index.tolist()

    def predict_step(self, batch: SessionBatch, batch_idx: int) -> None:
        self.seen["predict"] += batch.example_index.tolist()

    def on_train_epoch_end(self) -> None: ...

    def on_validation_epoch_end(self) -> None: ...

    def on_test_epoch_end(self) -> None: ...


def run(data: SessionDataModule, tmp_path: Path) -> Counter:
    lightning.seed_everything(3, verbose=False)
    model = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=tmp_path,
        )
        trainer.fit(model, datamodule=data)
        trainer.test(model, datamodule=data, verbose=False)
        trainer.predict(model, datamodule=data)
    return model


def test_a_trainer_sees_every_example_once(shop: Path, tmp_path: Path) -> None:
    data = SessionDataModule(str(shop), batch_size=7, eval_batch_size=5)
    seen = run(data, tmp_path).seen
    for split, name in zip(SPLITS, ("train", "val", "test", "predict"), strict=True):
        first = data.examples(split).first_index
        expected = list(range(first, first + len(data.examples(split))))
        assert sorted(seen[name]) == expected
        assert (seen[name] == expected) == (split != "train")  # only training is shuffled


def test_same_seed_same_order_with_and_without_workers(shop: Path, tmp_path: Path) -> None:
    seen = [run(SessionDataModule(str(shop), batch_size=7, num_workers=n), tmp_path).seen for n in (0, 0, 2)]
    assert seen[0] == seen[1] == seen[2]


def test_an_error_in_a_column_name_lists_the_columns(shop: Path) -> None:
    with pytest.raises(InputError, match=r"got 'visit'\)\. It has the columns session_id, user_id"):
        SessionDataModule(str(shop), columns=Columns(session="visit")).prepare_data()
