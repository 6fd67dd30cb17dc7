"""Checkpoints on disk: integrity checks, atomic writes and readable mismatch errors."""

from __future__ import annotations

import io
import pickle
import re
import traceback
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Trainer
from torch import Tensor

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.files import atomic_file
from llm4sbr.contracts.finite import require_finite_state
from llm4sbr.contracts.mismatch import differences, listed
from llm4sbr.training.sharded import check_sharded, is_sharded

_LIGHTNING = "pytorch-lightning_version"  # the Trainer writes this key and needs it on reading
_OURS = "llm4sbr"  # key of what `SBRModule` adds
_OF_TRAINING = ("optimizer_states", "lr_schedulers", "loops", "epoch", "global_step")
_VERSION = re.compile(r"\d+(\.\w+)*(\+\w+)?")
_ELSEWHERE = ("best", "last", "hpc")  # keywords that the Trainer resolves to a checkpoint itself
_LONG = 300  # maximum number of characters of a path in an error message


def read_checkpoint(path: str | Path, *, to_train: bool = False) -> dict[str, Any]:
    """Check every byte of a Trainer's checkpoint, then load it onto the CPU.

    The file is loaded with ``weights_only``: it may hold only tensors and plain values, so no code from the
    file runs.

    Args:
        path: Checkpoint file.
        to_train: Whether training resumes from the checkpoint; this also requires the optimiser's state.

    Raises:
        InputError: If the file does not exist, is truncated or damaged, holds anything but tensors and plain
            values, holds a tensor with NaN, or was not written by a Trainer.
    """
    path = Path(path)
    _check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|global:?) (\S+\.\S+)", str(error))
        raise InputError(
            "this checkpoint holds more than tensors and plain values, so it is not loaded",
            path=path,
            value=found[1].strip(".") if found else None,
        ) from error
    except Exception as error:  # torch.load raises many error types on a foreign archive
        raise InputError("this is not a checkpoint: PyTorch cannot read it", path=path) from error
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(map(_is_weight, state.items())):
        raise InputError("this is not a checkpoint of a Trainer: it has no state_dict of tensors", path=path)
    require_finite_state(state, path=path)
    known: dict[str, Any] = content
    wrong = [
        name
        for name in (_LIGHTNING, *(_OF_TRAINING if to_train else ()), _OURS)
        if not (name in known and _FORMS[name](known[name])) and not (name == _OURS and name not in known)
    ]
    missing = [name for name in wrong if name not in known]
    if wrong:
        raise InputError(
            f"this is not a checkpoint that {'training can resume from' if to_train else 'a Trainer wrote'}: "
            f"it has no {listed(missing) if missing else 'valid ' + listed(wrong)}",
            path=path,
        )
    return known


def _is_weight(item: tuple[object, object]) -> bool:
    name, value = item
    dense = isinstance(value, Tensor) and value.layout is torch.strided and not value.is_quantized
    return isinstance(name, str) and dense and not value.is_complex()  # type: ignore[attr-defined]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 62


def _are_states(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) and one for one in value)


def _check_archive(path: Path) -> None:
    """Check the archive's structure and the CRC of every record."""
    hint = "Use another copy of the file, or train again"
    try:
        if path.exists() and not path.is_file():
            raise InputError("a checkpoint is a file, and not a folder, pipe or device", path=path)
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                raise InputError("this is not a checkpoint: it is not a zip archive of PyTorch", path=path)
            with zipfile.ZipFile(file) as archive:
                damaged = archive.testzip()
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError("there is no such checkpoint", path=path) from error
    except OSError as error:
        raise InputError(
            f"this checkpoint cannot be read: {error.strerror}", path=str(path)[:_LONG]
        ) from error
    except Exception as error:  # zipfile raises many error types on a damaged archive
        raise InputError("this checkpoint is truncated or damaged", path=path, hint=hint) from error
    if damaged is not None:
        raise InputError(
            f"this checkpoint is damaged: the CRC sum of {damaged} is wrong", path=path, hint=hint
        )


_FORMS: dict[str, Callable[[Any], bool]] = {  # of the parts of a checkpoint
    _LIGHTNING: lambda value: isinstance(value, str) and _VERSION.fullmatch(value) is not None,
    _OURS: lambda value: isinstance(value, dict),
    "optimizer_states": _are_states,
    "lr_schedulers": lambda value: value == [] or _are_states(value),
    "loops": lambda value: isinstance(value, dict) and isinstance(value.get("fit_loop"), dict),
    "epoch": _is_count,
    "global_step": _is_count,
}


@contextmanager
def named_mismatch(path: str | Path) -> Iterator[None]:
    """Replace PyTorch's errors about mismatched parameters with a one-line error that names the checkpoint.

    Args:
        path: Checkpoint file.

    Raises:
        InputError: If the names or shapes in the checkpoint differ from those of the model or its optimiser.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        text = str(error)
        if text.startswith("Error(s) in loading state_dict"):
            problem = f"the checkpoint is of another model: {differences(text)}"
        elif text.startswith("loaded state dict"):
            problem = f"the checkpoint is of another optimiser: {text}"
        else:
            raise
        hint = "Give the options that it was trained with: those of config.yaml in the run's folder"
        raise InputError(problem, path=path, hint=hint) from error


@contextmanager
def checked(path: str | Path | None, *, to_train: bool = False) -> Iterator[None]:
    """Check a checkpoint, then name its file in loading errors raised inside the block.

    Args:
        path: Checkpoint file, or folder of a sharded checkpoint. None, URLs and the keywords ``best``,
            ``last`` and ``hpc`` are not checked first; the Trainer resolves them.
        to_train: See `read_checkpoint`.

    Raises:
        InputError: See `read_checkpoint`, `check_sharded` and `named_mismatch`; or the Trainer fails to
            restore the checkpoint.
    """
    if path is not None and path not in _ELSEWHERE and "://" not in str(path):
        if is_sharded(path):
            check_sharded(path)
        else:
            read_checkpoint(path, to_train=to_train)
    try:
        with named_mismatch(path or ""):
            yield
    except InputError:
        raise
    except Exception as error:
        if path is None or not _while_restoring(error):
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"this checkpoint cannot be restored: {said}", path=path) from error


def _while_restoring(error: BaseException) -> bool:
    """Whether the Trainer raised an error while it read a checkpoint, and not in training or evaluation."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        connector = frame.f_code.co_filename.endswith("checkpoint_connector.py")
        if connector and not frame.f_code.co_name.startswith(("dump", "hpc_save", "_get")):
            return True
    return False


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
