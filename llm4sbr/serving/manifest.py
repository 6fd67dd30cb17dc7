"""``manifest.json``: the model of a bundle, and a checksum of every file and of the manifest itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.files import write_text

MANIFEST, WEIGHTS, CATALOGUE = "manifest.json", "weights.safetensors", "catalogue.parquet"
TITLES, VIEWS = "titles.safetensors", "views.safetensors"
FORMAT, VERSION = "llm4sbr bundle", 1
REMAKE = "Make the bundle again with `llm4sbr export`, or use another copy of it"
_FILES = (WEIGHTS, CATALOGUE, TITLES, VIEWS)


@dataclass(frozen=True)
class ServedViewsSpec:
    """The views that the run trained with, without their vectors.

    Args:
        names: Names of the ``K`` views.
        source: ``llm`` for views that the bundle lists by session, ``titles`` for views from titles alone.
        used: Names of the views that the model reads.
        fallback: Replacement of an unknown view: ``mask`` for none, or title views.
        norms: Length of the title views that replace an unknown view, ``(K,)``; empty without a fallback.
        sessions: Number of sessions with known views.
        fingerprint: Fingerprint of everything that decides the views (`llm4sbr.views.store.spec`).
        described: Description of the same for a person.
    """

    names: tuple[str, ...]
    source: Literal["llm", "titles"]
    used: tuple[str, ...]
    fallback: Literal["mask", "titles"] = "mask"
    norms: tuple[float, ...] = ()
    sessions: int = 0
    fingerprint: str = ""
    described: str = ""

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> ServedViewsSpec:
        """Read the output of `dataclasses.asdict`, from a file that may be damaged.

        Raises:
            ValueError: If a field is missing or of another type.
        """
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in found.items()
        }
        made = cls(**fields)
        texts = (made.fingerprint, made.described, *made.names, *made.used)
        numbers = all(isinstance(norm, float) for norm in made.norms)
        if not (all(isinstance(text, str) for text in texts) and numbers and isinstance(made.sessions, int)):
            raise ValueError("a field of the views has another type")
        if made.source not in ("llm", "titles") or made.fallback not in ("mask", "titles") or not made.names:
            raise ValueError("the views have another source or fallback")
        if len(made.norms) != (len(made.names) if made.fallback == "titles" else 0):
            raise ValueError("the views have another number of norms")
        return made


@dataclass(frozen=True)
class Manifest:
    """Content of a bundle.

    Args:
        model: Class and arguments of the model, as in a checkpoint (`llm4sbr.contracts.rebuildable`).
        num_items: ``V``.
        catalogue: Fingerprint of the catalogue's ids and titles.
        max_length: Number of latest clicks that the model reads; None for any number.
        views: Views of a wrapped model; None without views.
        encoder: Identity of the text encoder behind titles and views; empty without views.
        metrics: Validation metrics of the checkpoint's epoch.
        versions: Versions of the packages that made the bundle.
        origin: The checkpoint and the data that the bundle was made of.
        files: Size in bytes and SHA-256 of every other file, by name.
        sha256: Checksum of all of the above: the fingerprint of the bundle.
    """

    model: dict[str, Any]
    num_items: int
    catalogue: str
    max_length: int | None
    views: ServedViewsSpec | None = None
    encoder: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    sha256: str = ""

    def write(self, folder: Path) -> None:
        """Write the manifest of a folder whose other files are complete."""
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        del content["sha256"]
        content["files"] = {name: _sums(folder / name) for name in _FILES if (folder / name).exists()}
        content["sha256"] = _checksum(content)
        write_text(folder / MANIFEST, json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, folder: str | Path, *, check: bool = True) -> Manifest:
        """Read the manifest of a bundle, and compare every file with its checksum.

        Args:
            folder: Folder of the bundle.
            check: Whether to compare checksums; otherwise only the files' sizes.

        Raises:
            InputError: If this is no bundle, or of another version, or a file is missing or damaged.
        """
        path = Path(folder) / MANIFEST
        content = _loaded(path)
        if content.get("format") != FORMAT:
            raise InputError("this is not the manifest of a bundle", path=path, value=content.get("format"))
        if content.get("version") != VERSION:
            raise InputError(
                f"this bundle has another format; this version of llm4sbr reads format {VERSION}",
                path=path,
                value=content.get("version"),
                hint="Make it again with this version of `llm4sbr export`",
            )
        if check and content.get("sha256") != _checksum({k: v for k, v in content.items() if k != "sha256"}):
            raise InputError("the manifest fails its checksum", path=path, hint=REMAKE)
        try:
            fields = {name: value for name, value in content.items() if name not in ("format", "version")}
            views = fields.pop("views")
            made = cls(**fields, views=None if views is None else ServedViewsSpec.from_dict(views))
            made._validate()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError("the manifest lacks a field, or has an odd one", path=path) from error
        for name, sums in made.files.items():
            _compare(Path(folder) / name, sums, check=check)
        return made

    def _validate(self) -> None:
        fields = (self.encoder, self.metrics, self.versions, self.origin, self.files, self.model)
        counts = self.num_items, 1 if self.max_length is None else self.max_length
        if not all(isinstance(one, dict) for one in fields) or not isinstance(self.catalogue, str):
            raise ValueError("a field has another type")
        if any(not isinstance(count, int) or isinstance(count, bool) or count < 1 for count in counts):
            raise ValueError("a number is not at least 1")
        needed = {WEIGHTS, CATALOGUE}
        if self.views is not None:
            needed |= {TITLES} | ({VIEWS} if self.views.source == "llm" else set())
        if set(self.files) != needed:  # this also keeps a foreign manifest from naming files elsewhere
            raise ValueError("the files are not those of such a bundle")


def is_bundle(folder: Path) -> bool:
    """Whether a folder holds a bundle, of any version, damaged or not."""
    try:
        return _loaded(folder / MANIFEST).get("format") == FORMAT
    except InputError:
        return False


def _loaded(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(
            "there is no bundle here", path=path.parent, hint="`llm4sbr export RUN --out FOLDER` makes one"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError("the manifest is damaged: it is not JSON", path=path, hint=REMAKE) from error
    if not isinstance(found, dict):
        raise InputError("this is not the manifest of a bundle", path=path)
    return found


def _checksum(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _sums(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _compare(path: Path, sums: Mapping[str, Any], *, check: bool) -> None:
    try:
        size = path.stat().st_size
        damaged = size != sums["bytes"] or (check and _sums(path) != dict(sums))
    except FileNotFoundError as error:
        raise InputError("this file of the bundle is missing", path=path, hint=REMAKE) from error
    except (OSError, KeyError, TypeError) as error:
        raise InputError("this file of the bundle cannot be read", path=path) from error
    if damaged:
        raise InputError("this file of the bundle is truncated or damaged", path=path, hint=REMAKE)
