"""One SIGTERM ends a long validation or prediction within seconds."""

import os
import signal
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


def trainer(folder):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    given = {"max_epochs": 1, "limit_train_batches": 2, "accelerator": "cpu", "enable_checkpointing": False}
    return Trainer(default_root_dir=folder, callbacks=[ResumePoint()], **given, **quiet)


@pytest.mark.parametrize("what", ["fit", "predict"])
def test_sigterm_is_heeded_within_seconds(tmp_path, what):
    """Seen to fail with either hook left out: the validation and the prediction run to their ends."""
    before, began = signal.getsignal(signal.SIGTERM), time.monotonic()
    with pytest.raises(SystemExit) as ended:
        getattr(trainer(tmp_path), what)(Slow())
    assert time.monotonic() - began < 9  # half a minute without; five seconds and a slow machine with
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    saved = ResumePoint.path(trainer(tmp_path))
    assert saved.is_file() == (what == "fit")
