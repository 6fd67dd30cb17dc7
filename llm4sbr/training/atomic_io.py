"""Checkpoints are written to a temporary sibling file first."""

from __future__ import annotations

import io
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Trainer

from llm4sbr.contracts.files import atomic_file


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a local checkpoint to a temporary sibling file and renames it.

    Lightning's default writes to the system's temporary folder and moves the file from there. Between two
    file systems such a move is a copy, and a kill during the copy leaves a truncated checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            InputError: If the file cannot be written.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()  # torch.save to a file hides the error of a full disk
        torch.save(checkpoint, content)
        with atomic_file(path) as file:
            file.write(content.getbuffer())


def save_atomically(trainer: Trainer) -> None:
    """Make a Trainer write checkpoints with `AtomicCheckpointIO`, unless the user chose another plug-in."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
