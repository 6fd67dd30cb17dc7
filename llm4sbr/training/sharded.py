"""Sharded checkpoints (folders of FSDP): a check that runs no code, before torch unpickles them."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from llm4sbr.contracts.errors import InputError

_METADATA, _TRAINER = ".metadata", "meta.pt"  # files of torch and of Lightning in the folder
_DISTRIBUTED = "torch.distributed.checkpoint."
# Names that a metadata file of torch refers to: data classes, enumerations and constructors of plain values.
_CLASSES = {
    f"{_DISTRIBUTED}metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    f"{_DISTRIBUTED}filesystem": {"_StorageInfo", "_StoragePrefix"},
    "torch": {"Size", "device"},
    "torch.serialization": {"_get_layout"},
    "collections": {"OrderedDict"},
    "builtins": {"set", "frozenset"},
    "pathlib": {"PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"},
}


class _MetadataOnly(pickle.Unpickler):
    """Unpickler of torch's metadata; any other class or function is refused before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if not dtype and name not in _CLASSES.get(module, ()):
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return super().find_class(module, name)


def is_sharded(path: str | Path) -> bool:
    """Whether a path is the folder of a sharded checkpoint."""
    try:
        return (Path(path) / _METADATA).is_file()
    except (OSError, ValueError):
        return False


def check_sharded(path: str | Path) -> None:
    """Check that a sharded checkpoint holds only tensors and plain values; no code from it runs.

    torch unpickles the metadata and every value that is not a tensor without a restriction. This function
    reads both with a restriction first.

    Args:
        path: Folder with ``.metadata``.

    Raises:
        InputError: If a file is damaged or missing, lies outside the folder, or refers to code.
    """
    folder = Path(path)
    try:
        with (folder / _METADATA).open("rb") as file:
            metadata = _MetadataOnly(file).load()
        torch.load(folder / _TRAINER, map_location="cpu", weights_only=True)
        for index, kind in metadata.state_dict_metadata.items():
            if type(kind).__name__ == "BytesStorageMetadata":
                for place, stored in metadata.storage_data.items():
                    if place.fqn == index:
                        _check_value(folder, stored)
    except InputError:
        raise
    except Exception as error:  # unpickling raises many error types on a foreign file
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"this sharded checkpoint is damaged or holds more than tensors and plain values: {said}",
            path=path,
        ) from error


def read_rest(path: str | Path) -> dict[str, Any]:
    """Read all of a sharded checkpoint but weights and optimisers, as tensors and plain values only."""
    found: dict[str, Any] = torch.load(Path(path) / _TRAINER, map_location="cpu", weights_only=True)
    return found


def _check_value(folder: Path, stored: Any) -> None:
    """Load one value that is not a tensor, as tensors and plain values only."""
    file = folder / stored.relative_path
    if folder.resolve() not in file.resolve().parents:
        raise InputError("a part of this checkpoint lies outside its folder", path=folder, value=str(file))
    if getattr(stored, "transform_descriptors", None):
        raise InputError("a part of this checkpoint is compressed, so it cannot be checked", path=folder)
    with file.open("rb") as stream:
        stream.seek(stored.offset)
        torch.load(io.BytesIO(stream.read(stored.length)), map_location="cpu", weights_only=True)
