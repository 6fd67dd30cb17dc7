"""The launch scripts, with CPU processes in place of GPUs and stand-ins for Slurm's own commands."""

import os
import signal
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest
from scripts import EXPERIMENTS

SLURM = Path(__file__).parents[1] / "helpers" / "slurm"
SHORT = [
    "--trainer.accelerator", "cpu", "--trainer.limit_train_batches", "4", "--trainer.limit_val_batches", "2",
    "--trainer.enable_progress_bar", "false", "--data.num_workers", "0", "--data.batch_size", "32",
]  # fmt: skip


def start(script, root, environment, *words):
    """The script, begun as its first lines say."""
    command = ["bash", str(EXPERIMENTS / "launch" / script), *SHORT, *words]
    return subprocess.Popen(
        command, cwd=root, env=os.environ | environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def epochs(run):
    """The epochs that were validated, from 0."""
    table = pl.read_csv(run / "metrics.csv")
    return table.filter(pl.col("val/ndcg@20").is_not_null())["epoch"].to_list()


@pytest.mark.data
def test_torchrun(root, environment):
    started = start("torchrun.sh", root, environment | {"PROCESSES": "2"}, "--trainer.max_epochs", "2",
                    "--trainer.logger.init_args.version", "torchrun")  # fmt: skip
    told = started.communicate(timeout=300)[0]
    assert started.returncode == 0, told
    assert "All distributed processes registered. Starting with 2 processes" in told
    assert epochs(root / "runs" / "llm4sbr" / "torchrun") == [0, 1]


@pytest.mark.data
def test_a_slurm_job_is_saved_requeued_and_resumed(root, environment, tmp_path):
    """Two machines with one task each. Slurm warns the job's shell, and starts a requeued job again.

    Seen to fail with a trap that signals the shell alone.
    """
    told = environment | {
        "PATH": f"{SLURM}:{environment['PATH']}", "FAKE_SLURM": str(tmp_path), "SLURM_JOB_ID": "4711",
        "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "1",
    }  # fmt: skip
    run = root / "runs" / "llm4sbr" / "slurm-4711"
    words = ("--trainer.max_epochs", "3", "--resume.every_n_steps", "1")
    job, deadline = start("slurm.sh", root, told, *words), time.monotonic() + 120
    while not (run / "checkpoints" / "resume.ckpt").exists():
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    said = job.communicate(timeout=120)[0]
    assert "Starting with 2 processes" in said
    assert f"llm4sbr resume {run.relative_to(root)}" in said
    assert (tmp_path / "scontrol").read_text() == "requeue 4711\n"
    job = start("slurm.sh", root, told, *words)
    said = job.communicate(timeout=300)[0]
    assert job.returncode == 0, said
    assert epochs(run) == [0, 1, 2]
    assert not (run / "checkpoints" / "resume.ckpt").exists()
    assert (tmp_path / "scontrol").read_text() == "requeue 4711\n"
