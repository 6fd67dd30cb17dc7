"""A fit that was stopped goes on in its own folder, and no other fit does."""

import signal
import time

from scripts import run, start
from shops import write_shop
from studies import kept

from experiments.study.stopped import stopped_run


def test_a_stopped_run_is_known_by_its_words(tmp_path):
    """Seen to fail where any stopped run of that name goes on."""
    assert stopped_run(tmp_path, ["fit", "--a"]) is None
    assert stopped_run(tmp_path, ["fit", "--a"]) is None  # killed before its first checkpoint
    point = tmp_path / "version_0" / "checkpoints" / "resume.ckpt"
    point.parent.mkdir(parents=True)
    point.touch()
    assert stopped_run(tmp_path, ["fit", "--a"]) == tmp_path / "version_0"
    assert stopped_run(tmp_path, ["fit", "--b"]) is None
    assert stopped_run(tmp_path, ["fit", "--b"]) is None  # not the other words' checkpoint
    point.unlink()
    assert stopped_run(tmp_path, ["fit", "--a"]) is None


def test_a_stopped_fit_goes_on_in_its_own_folder(tmp_path):
    """SIGTERM in the middle of a fit. Seen to fail with the fit begun anew."""
    write_shop(tmp_path, sessions=30)
    words = [
        "compare",
        "--data",
        "data.yaml",
        "--variants",
        "[bare]",
        "--backbones",
        "[STAMP]",
        "--seeds",
        "[0]",
    ]
    words += ["--out", "results", "--settings"]
    words += ["{epochs: 300, trainer.accelerator: cpu, trainer.check_val_every_n_epoch: 150}"]
    stopped = start(tmp_path, *words)
    folder = tmp_path / "runs" / "results" / "stamp-bare-0"
    deadline = time.monotonic() + 120
    while not (folder / "version_0" / "checkpoints" / "resume.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    stopped.process.terminate()
    status, _, complained = stopped.wait()
    assert status == 128 + signal.SIGTERM, complained
    assert not (tmp_path / "results.parquet").exists()
    run(tmp_path, *words)
    (fit,) = kept(tmp_path / "results.parquet").values()
    assert [path.name for path in folder.glob("version_*")] == ["version_0"]
    assert fit["epochs"] == 300
    assert fit["log_dir"].endswith("version_0")
