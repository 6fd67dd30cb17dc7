"""Throughput: shares of the time, by a clock that the test turns."""

import re

import pytest
import torch
from lightning.pytorch import Trainer
from shops import write_shop

from llm4sbr import SBRModule
from llm4sbr.backbones import GRU4Rec
from llm4sbr.callbacks import Throughput, throughput
from llm4sbr.datamodules import SessionDataModule
from llm4sbr.datamodules.rules import SplitBy

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])
    return now


def fitted(tmp_path, clock, seconds, **options):
    """Fit two epochs in which each part takes its seconds, a step and an epoch's validation."""

    class Slow(SBRModule):
        def losses(self, batch):
            clock[0] += seconds.get("the loss", 0)
            return super().losses(batch)

        def backward(self, loss, *args, **kwargs):
            clock[0] += seconds.get("its gradient", 0)
            super().backward(loss, *args, **kwargs)

        def optimizer_step(self, *args, **kwargs):
            super().optimizer_step(*args, **kwargs)
            clock[0] += seconds.get("the optimiser", 0)

        def on_validation_epoch_end(self):
            clock[0] += seconds.get("validation", 0)
            super().on_validation_epoch_end()

    data = SessionDataModule(
        write_shop(tmp_path), split=SplitBy("column"), batch_size=7, cache_dir=str(tmp_path)
    )
    measured = Throughput()
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[measured],
        enable_model_summary=False, num_sanity_val_steps=1, default_root_dir=tmp_path, **options,
    )  # fmt: skip
    trainer.fit(Slow(GRU4Rec(data.num_items, 4)), datamodule=data)
    return measured, len(data.examples("train")), trainer


def test_each_part_has_its_time(tmp_path, clock, capsys):
    """The validation of the sanity check is not of the training."""
    seconds = {"the loss": 2.0, "its gradient": 3.0, "the optimiser": 1.0, "validation": 10.0}
    measured, count, trainer = fitted(tmp_path, clock, seconds)
    steps = 2 * trainer.num_training_batches
    assert measured.examples == 2 * count
    assert measured.seconds == {
        "waiting for batches": 0.0,
        "the loss": 2 * steps,
        "its gradient": 3 * steps,
        "the optimiser": steps,
        "validation": 20,
    }
    speed = count / (6 * trainer.num_training_batches)
    assert trainer.logged_metrics["throughput/examples_per_second"].item() == pytest.approx(speed)
    said = re.search(r"(\S+) examples/s in training. Of the time: (.*)\.", capsys.readouterr().out)
    assert float(said[1]) == round(speed)
    assert "its gradient" in said[2]
    assert "waiting" not in said[2]


def test_no_progress_bar_no_line(tmp_path, clock, capsys):
    fitted(tmp_path, clock, {"the loss": 1.0}, enable_progress_bar=False)
    assert "examples/s" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("part", "advice"),
    [
        ("waiting for batches", "--data.num_workers"),
        ("the optimiser", "large-catalogue.yaml"),
        ("validation", "--trainer.limit_val_batches"),
        ("the loss", "Arithmetic is the bottleneck"),
    ],
)
def test_advice_is_about_what_takes_the_time(part, advice):
    measured = Throughput()
    measured.examples = 100
    measured.seconds = dict.fromkeys(throughput.PARTS, 1.0) | {part: 9.0}
    said = measured.summary(2, CPU)
    assert f"{part} 69%" in said
    assert advice in said
    assert sum(one in said for one in ("--data.num_workers", "large-cat", "limit_val", "Arithmetic")) == 1


@pytest.mark.parametrize(("behind", "told"), [(0.0, "waited for the process"), (2.0, "was the bottleneck")])
def test_a_gpu_that_finishes_late_was_the_bottleneck(behind, told):
    measured = Throughput()
    measured.examples, measured.seconds["the loss"], measured._behind = 5, 10.0, behind
    assert told in measured.summary(1, torch.device("cuda"))
