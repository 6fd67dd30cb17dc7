"""Checkpoints are checked before use: damaged, foreign and mismatched ones end in one line."""

import pickle
import random
import signal
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO
from scripts import Started
from torch import nn

from llm4sbr.contracts.errors import InputError
from llm4sbr.training.atomic_io import save_atomically
from llm4sbr.training.checkpoint import checked, named_mismatch, read_checkpoint

CONTENT = {
    "pytorch-lightning_version": "2.5.0", "state_dict": {"w": torch.arange(50.0)},
    "optimizer_states": [{"state": {}, "param_groups": [{}]}],
    "lr_schedulers": [], "loops": {"fit_loop": {}}, "epoch": 1, "global_step": 7,
}  # fmt: skip


class Plain(LightningModule):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(50))

    def training_step(self, batch, batch_idx):
        return self.w.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return [0]


class RunsCode:
    def __reduce__(self):
        return (Path.touch, (Path("was-run"),))


@pytest.fixture
def whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(CONTENT, tmp_path / "whole.ckpt")
    return tmp_path / "whole.ckpt"


def test_a_whole_checkpoint_is_read(whole):
    for to_train in (False, True):
        assert read_checkpoint(whole, to_train=to_train)["global_step"] == 7


def test_every_flipped_bit_is_refused_or_harmless(whole):
    """Seen to fail with `torch.load` alone, which does not check the sums."""
    sound, draw, refused = whole.read_bytes(), random.Random(0), 0
    for _ in range(300):
        damaged = bytearray(sound)
        damaged[draw.randrange(len(sound))] ^= 1 << draw.randrange(8)
        whole.write_bytes(damaged)
        try:
            read = read_checkpoint(whole)
        except InputError as error:
            assert str(whole) in str(error)  # noqa: PT017
            refused += 1
        else:
            assert torch.equal(read["state_dict"]["w"], CONTENT["state_dict"]["w"])
    assert refused > 50


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(whole, share):
    whole.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with pytest.raises(InputError, match=r"whole\.ckpt: this (checkpoint is truncated|is not a checkpoint)"):
        read_checkpoint(whole)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({**CONTENT, "state_dict": RunsCode()}, "more than tensors and plain values"),
        ({"w": torch.ones(2)}, "no state_dict"),
        ([1, 2], "no state_dict"),
        ({**CONTENT, "state_dict": {"w": "a"}}, "no state_dict"),
        ({"state_dict": {}}, "no pytorch-lightning_version"),
    ],
)
def test_a_foreign_file_is_refused(whole, content, told):
    torch.save(content, whole)
    with pytest.raises(InputError, match=told):
        read_checkpoint(whole)
    assert not Path("was-run").exists()


def test_weights_alone_are_no_point_to_train_on_from(whole):
    torch.save({name: CONTENT[name] for name in ("pytorch-lightning_version", "state_dict")}, whole)
    read_checkpoint(whole)
    with pytest.raises(InputError, match="it has no optimizer_states, lr_schedulers and 3 others"):
        read_checkpoint(whole, to_train=True)


def test_other_files_are_refused(whole, tmp_path):
    (tmp_path / "text.ckpt").write_text("weights")
    (tmp_path / "pickle.ckpt").write_bytes(pickle.dumps({"state_dict": {}}))
    for name, told in (("text", "not a zip"), ("pickle", "not a zip"), ("none", "no such checkpoint")):
        with pytest.raises(InputError, match=rf"{name}\.ckpt: .*{told}"):
            read_checkpoint(tmp_path / f"{name}.ckpt")
    with pytest.raises(InputError, match="a folder"):
        read_checkpoint(tmp_path)


W, BIAS = torch.ones(2, 3), torch.ones(2)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"weight": torch.ones(2, 4), "bias": BIAS}, r"weight has the shape \[2, 4\] in the checkpoint and"),
        ({"weight": W}, "the model has bias, the checkpoint does not"),
        ({"weight": W, "bias": BIAS, "more": BIAS}, "the checkpoint has more, the model does not"),
    ],
)
def test_a_mismatch_says_what_differs_in_one_line(state, told):
    with pytest.raises(InputError, match=rf"a\.ckpt: .*{told}") as caught, named_mismatch("a.ckpt"):
        nn.Linear(3, 2).load_state_dict(state)
    assert "\n" not in str(caught.value)


def test_a_state_of_another_optimiser_says_so():
    def optimizer(groups):
        return torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(2))]} for _ in range(groups)], lr=0.1)

    with pytest.raises(InputError, match=r"a\.ckpt: .*of another optimiser"), named_mismatch("a.ckpt"):
        optimizer(1).load_state_dict(optimizer(2).state_dict())


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="something else"), checked(None):
        raise RuntimeError("something else")


_WEIGHT = torch.zeros(3)


@pytest.mark.parametrize(
    ("part", "value", "to_train"),
    [
        ("state_dict", {3: _WEIGHT}, False),  # seen to raise AttributeError in load_state_dict
        ("state_dict", {"w": _WEIGHT.to_sparse()}, False),
        ("state_dict", {"w": _WEIGHT.to(torch.complex64)}, False),  # seen to load without a word
        ("pytorch-lightning_version", 3, False),  # seen to raise in the migration
        ("pytorch-lightning_version", "x.y", False),
        ("llm4sbr", 3, False),
        ("loops", {}, True),  # seen to train on from the first epoch
        ("loops", [1], True),
        ("optimizer_states", [], True),  # seen to train on with new moments
        ("optimizer_states", [3], True),
        ("lr_schedulers", 3, True),
        ("epoch", "x", True),
        ("global_step", -3, True),
        ("global_step", 10**30, True),
    ],
)
def test_a_part_of_another_form_is_refused(whole, part, value, to_train):
    torch.save({**CONTENT, part: value}, whole)
    with pytest.raises(InputError, match=r"whole\.ckpt: this is not a checkpoint"):
        read_checkpoint(whole, to_train=to_train)


def test_an_error_while_the_trainer_restores_names_the_checkpoint(whole):
    """Seen to fail with a traceback, in many forms."""
    torch.save({**CONTENT, "callbacks": 7}, whole)
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    with pytest.raises(InputError, match=r"whole\.ckpt: this checkpoint cannot be restored"), checked(whole):
        trainer.fit(Plain(), ckpt_path=whole, weights_only=True)
    with pytest.raises(ZeroDivisionError), checked(whole):
        raise ZeroDivisionError


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """A sharded checkpoint of tensors and plain values."""
    from torch.distributed import checkpoint

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "shards.ckpt"
    state = {"state_dict": {"w": torch.arange(9.0)}, "plain": {"lr": 0.1, "names": ["a", "b"]}}
    checkpoint.save(state, checkpoint_id=folder, no_dist=True)
    torch.save(CONTENT, folder / "meta.pt")
    return folder


@pytest.mark.parametrize("harm", ["metadata", "value", "trainer", "truncated", "outside"])
def test_a_sharded_checkpoint_runs_no_code(shards, harm):
    """Seen to fail: torch unpickles the metadata and the values that are no tensors."""
    from torch.distributed import checkpoint

    with checked(shards, to_train=True):  # plain values pass
        metadata = shards / ".metadata"
    if harm == "metadata":
        metadata.write_bytes(pickle.dumps(RunsCode()))
    elif harm == "value":
        checkpoint.save({"w": torch.zeros(2), "evil": RunsCode()}, checkpoint_id=shards, no_dist=True)
    elif harm == "trainer":
        torch.save({**CONTENT, "x": RunsCode()}, shards / "meta.pt")
    elif harm == "truncated":
        metadata.write_bytes(metadata.read_bytes()[:40])
    else:
        found = pickle.loads(metadata.read_bytes())
        for stored in found.storage_data.values():
            stored.relative_path = f"../{stored.relative_path}"
        metadata.write_bytes(pickle.dumps(found))
    with pytest.raises(InputError, match=r"shards\.ckpt"), checked(shards):
        pass
    assert not Path("was-run").exists()


@pytest.mark.parametrize("word", [None, "best", "last", "hpc", "s3://bucket/a.ckpt"])
def test_what_the_trainer_finds_itself_is_left_to_it(word):
    """The block is reached, and its errors pass."""
    with pytest.raises(ZeroDivisionError), checked(word):
        raise ZeroDivisionError


def test_a_trainer_saves_atomically(tmp_path):
    """Seen to fail with Lightning's own, whose move from the folder for temporary files is a copy."""
    trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    save_atomically(trainer)
    assert type(trainer.strategy.checkpoint_io) is not TorchCheckpointIO
    trainer.strategy.connect(LightningModule())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    before = (tmp_path / "a.ckpt").read_bytes()
    read_checkpoint(tmp_path / "a.ckpt")
    code = (
        "import os, pathlib, signal, sys; from llm4sbr.training.atomic_io import AtomicCheckpointIO\n"
        "pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "AtomicCheckpointIO().save_checkpoint({'state_dict': {}}, sys.argv[1])"
    )
    assert Started(tmp_path, code, str(tmp_path / "a.ckpt")).wait()[0] == -signal.SIGKILL
    assert (tmp_path / "a.ckpt").read_bytes() == before
    trainer.strategy.checkpoint_io = chosen = AsyncCheckpointIO()
    save_atomically(trainer)
    assert trainer.strategy.checkpoint_io is chosen  # the user's own stays
