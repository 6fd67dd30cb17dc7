"""A bundle: one folder with everything that recommends, in safetensors, Parquet and JSON alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from llm4sbr.contracts.catalogue import Catalogue
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.files import atomic_folder
from llm4sbr.nn.scoring import Scoring, WrappedScoring
from llm4sbr.serving.known_views import SessionViews
from llm4sbr.serving.manifest import CATALOGUE, MANIFEST, REMAKE, TITLES, VIEWS, WEIGHTS, Manifest, is_bundle
from llm4sbr.serving.model import build_model, freeze, load_serving_state


class Content(NamedTuple):
    """Tensors and tables of a bundle, before it is written."""

    weights: Mapping[str, Tensor]  # `llm4sbr.serving.model.serving_state`
    catalogue: Catalogue
    titles: tuple[Tensor, Tensor] | None  # (V, d_t) and (V,) bool; None without views
    views: Mapping[str, Tensor] | None  # `llm4sbr.serving.known_views.pack_views`; None without known views


class Opened(NamedTuple):
    """A bundle in memory, on a device."""

    manifest: Manifest
    model: Scoring
    catalogue: Catalogue
    views: SessionViews | None


def write_bundle(
    out: str | Path, manifest: Manifest, content: Content, check: Callable[[Path], None] | None = None
) -> Path:
    """Write a bundle: complete under its name, or not at all.

    Args:
        out: Folder of the bundle. An existing bundle is replaced when the new one is complete.
        manifest: Manifest without the files' checksums.
        content: Tensors and tables.
        check: Called with the complete folder before it gets its name; if it raises, nothing is replaced.

    Raises:
        InputError: If `out` is a file, or a folder that is neither empty nor a bundle, or cannot be written.
    """
    out = Path(out)
    if out.is_dir() and any(out.iterdir()) and not is_bundle(out):
        said = "this folder is no bundle, so it is not replaced"
        raise InputError(said, path=out, hint="Name another folder")
    with atomic_folder(out, replace=True) as folder:
        _save(content.weights, folder / WEIGHTS)
        _write_catalogue(content.catalogue, folder / CATALOGUE)
        if content.titles is not None:
            embeddings, mask = content.titles
            _save({"titles": embeddings, "mask": mask}, folder / TITLES)
        if content.views is not None:
            _save(content.views, folder / VIEWS)
        manifest.write(folder)
        if check is not None:
            check(folder)
    return out


def read_bundle(
    path: str | Path,
    device: str | torch.device = "cpu",
    *,
    check: bool = True,
    classes: Iterable[type] = (),
    by_rows: bool = False,
) -> Opened:
    """Read a bundle and build its model; see `read_content` and `open_content`."""
    manifest, content = read_content(path, check=check)
    return open_content(manifest, content, device, classes=classes, folder=path, by_rows=by_rows)


def read_content(path: str | Path, *, check: bool = True) -> tuple[Manifest, Content]:
    """Read the manifest, the tensors and the tables of a bundle.

    Args:
        path: Folder of the bundle.
        check: Whether to compare every file with its checksum.

    Raises:
        InputError: If the bundle is damaged, incomplete or of another version.
    """
    folder = Path(path)
    manifest = Manifest.read(folder, check=check)
    catalogue = read_catalogue(folder / CATALOGUE)
    if catalogue.num_items != manifest.num_items or catalogue.fingerprint != manifest.catalogue:
        raise InputError(
            f"the catalogue has {catalogue.num_items} items and is not the bundle's, of {manifest.num_items}",
            path=folder / CATALOGUE,
            hint=REMAKE,
        )
    titles = None
    if manifest.views is not None:
        found = _load(folder / TITLES)
        if set(found) != {"titles", "mask"} or len(found["titles"]) != catalogue.num_items:
            raise InputError("these are not the title embeddings of the catalogue", path=folder / TITLES)
        titles = found["titles"], found["mask"]
    stored = manifest.views is not None and manifest.views.source == "llm"
    views = _load(folder / VIEWS) if stored else None
    return manifest, Content(_load(folder / WEIGHTS), catalogue, titles, views)


def open_content(
    manifest: Manifest,
    content: Content,
    device: str | torch.device = "cpu",
    *,
    classes: Iterable[type] = (),
    folder: str | Path = "bundle",
    by_rows: bool = False,
) -> Opened:
    """Build the model of a bundle. Nothing in it runs code; only registered classes and `classes` are built.

    Args:
        manifest: Manifest.
        content: Tensors and tables; they stay as they are.
        device: Device of the model.
        classes: Classes that may be built besides registered ones.
        folder: Folder of the bundle, for messages.
        by_rows: Whether normalised items are stored by rows, for a retrieval.

    Raises:
        InputError: If the weights or views do not fit the model, or it names a class that is not registered.
    """
    folder, catalogue = Path(folder), content.catalogue
    with _named(folder / MANIFEST):
        model = build_model(manifest.model, classes)
        if model.backbone.num_items != catalogue.num_items:
            raise InputError(
                f"the model has {model.backbone.num_items} items, the catalogue {catalogue.num_items}"
            )
    with _named(folder / WEIGHTS):
        load_serving_state(model, content.weights)
    views = None
    if manifest.views is not None and content.titles is not None:
        stored = None if content.views is None else dict(content.views)
        with _named(folder / TITLES):
            views = SessionViews(manifest.views, content.titles, stored, device)
            fits = isinstance(model, WrappedScoring) and (len(model.interest_of_view), model.text_dim) == (
                len(manifest.views.names),
                views.text_dim,
            )
            if not fits:
                raise InputError("the views do not fit the model", value=manifest.views.names)
    return Opened(manifest, freeze(model, by_rows).to(device), catalogue, views)


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    # safetensors refuses tensors that share memory, as tied weights do.
    save_file({name: one.detach().cpu().clone().contiguous() for name, one in tensors.items()}, path)


def _load(path: Path) -> dict[str, Tensor]:
    """Tensors of a file, mapped into memory."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError("this file of the bundle cannot be read", path=path, hint=REMAKE) from error


def _write_catalogue(catalogue: Catalogue, path: Path) -> None:
    import polars as pl

    table = pl.DataFrame(
        {"item_id": catalogue.item_ids, "title": catalogue.titles},
        schema={"item_id": pl.String, "title": pl.String},
    )
    with path.open("wb") as file:
        table.write_parquet(file)


def read_catalogue(path: Path) -> Catalogue:
    """Read the catalogue of a bundle.

    Raises:
        InputError: If the file cannot be read, or is another table.
    """
    import polars as pl

    try:
        table = pl.read_parquet(path, columns=["item_id", "title"], glob=False)
        if table.schema != {"item_id": pl.String, "title": pl.String} or sum(table.null_count().row(0)):
            raise InputError("a column has another type, or an empty cell")
        return Catalogue(tuple(table["item_id"].to_list()), tuple(table["title"].to_list()))
    except InputError as error:
        raise InputError(error.problem, path=path, value=error.value, hint=REMAKE) from error
    except (Exception, pl.exceptions.PanicException) as error:  # a panic is no `Exception`
        raise InputError("this file of the bundle cannot be read", path=path, hint=REMAKE) from error


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in an error about its content."""
    try:
        yield
    except InputError as error:
        if error.path is not None:
            raise
        raise InputError(error.problem, path=path, value=error.value, hint=error.hint) from error
