"""One SIGTERM ends a long validation, test or prediction within seconds, with one process or several."""

import multiprocessing
import os
import signal
import socket
import threading
import time

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from llm4sbr.callbacks import ResumePoint


class Slow(BoringModel):
    """Its second validation, and every prediction, would take half a minute; the first asks for SIGTERM."""

    def on_validation_start(self):
        if not self.trainer.sanity_checking:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()

    def on_predict_start(self):
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()

    def validation_step(self, batch, batch_idx):
        if not self.trainer.sanity_checking:
            time.sleep(0.5)
        return super().validation_step(batch, batch_idx)

    def predict_step(self, batch, batch_idx):
        time.sleep(0.5)
        return self(batch)


class SlowOnTheSecond(Slow):
    """The same on two processes of which only the second gets SIGTERM; each counts its batches."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_validation_start(self):
        if self.global_rank == 1:
            super().on_validation_start()

    def on_predict_start(self):
        if self.global_rank == 1:
            super().on_predict_start()

    def validation_step(self, batch, batch_idx):
        (self.folder / f"rank-{self.global_rank}").write_text(str(batch_idx))
        return super().validation_step(batch, batch_idx)

    def predict_step(self, batch, batch_idx):
        (self.folder / f"rank-{self.global_rank}").write_text(str(batch_idx))
        return super().predict_step(batch, batch_idx)


def trainer(folder, **more):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    given = {"max_epochs": 1, "limit_train_batches": 2, "accelerator": "cpu", "enable_checkpointing": False}
    return Trainer(default_root_dir=folder, callbacks=[ResumePoint()], **given, **quiet, **more)


@pytest.mark.parametrize("what", ["fit", "validate", "predict"])
def test_sigterm_is_heeded_within_seconds(tmp_path, what):
    """Seen to fail with a hook left out: the validation and the prediction run to their ends."""
    before, began = signal.getsignal(signal.SIGTERM), time.monotonic()
    with pytest.raises(SystemExit) as ended:
        getattr(trainer(tmp_path), what)(Slow())
    assert time.monotonic() - began < 9  # half a minute without; five seconds and a slow machine with
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    saved = ResumePoint.path(trainer(tmp_path))
    assert saved.is_file() == (what == "fit")


def take_part(rank, port, folder, what):
    """One of two processes as torchrun starts them."""
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": str(rank)}
    os.environ |= {**environment, "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2",
                   "TORCHELASTIC_RUN_ID": "1"}  # fmt: skip
    getattr(trainer(folder, devices=2, strategy="ddp"), what)(SlowOnTheSecond(folder))


@pytest.mark.parametrize("what", ["fit", "validate", "predict"])
def test_processes_leave_together_if_one_gets_sigterm(tmp_path, what):
    """Seen to fail with a vote of each process for itself: then the first runs to its end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began, fork = time.monotonic(), multiprocessing.get_context("fork")
    both = [fork.Process(target=take_part, args=(rank, port, tmp_path, what)) for rank in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join(40)
        process.kill()
    assert time.monotonic() - began < 12  # 16 s without
    assert [process.exitcode for process in both] == 2 * [128 + signal.SIGTERM]
    done = [int((tmp_path / f"rank-{rank}").read_text()) for rank in (0, 1)]
    assert done[0] == done[1] < 20
