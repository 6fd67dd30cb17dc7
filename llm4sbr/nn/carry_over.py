"""Carry a model's tensors and its optimiser's state over to another catalogue, item by item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.catalogue_change import CarriesOver, CatalogueChange
from llm4sbr.contracts.errors import InputError
from llm4sbr.nn.cold_items import cold_rows
from llm4sbr.nn.heads.score_head import ScoreHead

_MORE = 3  # a table has up to two rows beside the items: padding and a mask token
_HINT = "Say it with item_rows or carry_over (docs/extending.md), or train a new model"


def item_rows(model: nn.Module) -> dict[str, int]:
    """Names of a model's tensors with one row per item, and the number of rows before item 1.

    Backbones and heads declare them (`item_rows`); parametrised and shared tensors are found under all their
    names.

    >>> from llm4sbr import LLM4SBRWrapper
    >>> from llm4sbr.backbones import SRGNN
    >>> item_rows(LLM4SBRWrapper(SRGNN(9, 8), text_dim=4))
    {'backbone.embedding.parametrizations.weight.original': 1}
    """
    state = model.state_dict(keep_vars=True)
    found: dict[str, int] = {}
    for prefix, module in _with_prefix(model):
        if not isinstance(module, SessionBackbone | ScoreHead):
            continue
        for name, first in module.item_rows().items():
            path, _, last = f"{prefix}{name}".rpartition(".")
            inside = f"{path}.parametrizations.{last}.original"
            found[inside if inside in state else f"{prefix}{name}"] = first
    shared = {id(state[name]): first for name, first in found.items() if name in state}
    return found | {name: shared[id(one)] for name, one in state.items() if id(one) in shared}


def carried_state(
    model: nn.Module, before: Mapping[str, Tensor], change: CatalogueChange
) -> dict[str, Tensor]:
    """Convert the state dict of a checkpoint to the catalogue of a model.

    Learned rows of new items come from their titles (`cold_rows`) where these are known; other rows of new
    items are those of the model, which begin untrained. Tensors of another architecture are left as they
    are, so that loading reports them.

    Args:
        model: Model for the present catalogue.
        before: State dict of the checkpoint. It may have further buffers, which a state dict leaves out.
        change: How the catalogues differ.

    Raises:
        InputError: If a tensor may hold something per item, and no part of the model says so.
    """
    beside = {name: one for name, one in buffers_beside(model).items() if name in before}
    here = {**model.state_dict(), **beside}
    learned = set(dict(model.named_parameters(remove_duplicate=False)))
    carried, known = dict(before), set[str]()
    for prefix, module in _with_prefix(model):
        if isinstance(module, CarriesOver):
            names = {name for name in here if name.startswith(prefix)}
            known |= names
            if names <= set(before):
                own = {name.removeprefix(prefix): before[name] for name in names}
                made = module.carry_over(own, change)
                carried.update({f"{prefix}{name}": tensor for name, tensor in made.items()})
    for name, first in item_rows(model).items():
        if name in here and name in before and name not in known:
            known.add(name)
            if change.fits(before[name], here[name], first):
                carried[name] = change.rows(before[name], here[name], first)
                if name in learned:
                    _start_from_titles(carried[name], first, change)
    if not change.same_items:
        for name in sorted(set(here) & set(before) - known):
            _check_unrelated(name, before[name], here[name], change)
    return carried


def buffers_beside(model: nn.Module) -> dict[str, Tensor]:
    """Buffers that `state_dict` leaves out, by name."""
    persistent, every = set(model.state_dict()), model.named_buffers(remove_duplicate=False)
    return {name: buffer for name, buffer in every if name not in persistent}


def _start_from_titles(rows: Tensor, first: int, change: CatalogueChange) -> None:
    """Set the rows of new items with a title, in place; without known titles nothing changes."""
    if change.titles is None or change.titled is None:
        return
    new, titled, titles = change.source == 0, change.titled.cpu(), change.titles.cpu()
    known = titled & ~new
    if known.any():
        items = rows[first : first + change.num_items]
        where = (new & titled).to(rows.device)
        made = cold_rows(items[known.to(rows.device)].cpu(), titles[known], titles[new & titled])
        items[where] = made.to(rows)


def _check_unrelated(name: str, before: Tensor, here: Tensor, change: CatalogueChange) -> None:
    """Refuse a tensor that no part declares and that may hold rows or numbers of items."""
    then, now = change.num_before, change.num_items
    numbers = not before.is_floating_point() and before.dtype != torch.bool and before.numel() > 1
    by_item = before.ndim == here.ndim and any(
        old - then == new - now and 0 <= old - then < _MORE and (old != new or then == now)
        for old, new in zip(before.shape, here.shape, strict=True)
    )
    if numbers or by_item:
        raise InputError(
            "the checkpoint has another catalogue, and the model does not say which item each "
            f"{'number' if numbers else 'row'} of {name} belongs to",
            hint=_HINT,
        )


def carried_optimizer(
    state: Mapping[Any, Mapping[str, Any]],
    names: Iterable[str],
    rows: Mapping[str, int],
    parameters: Mapping[str, Tensor],
    change: CatalogueChange,
) -> dict[Any, dict[str, Any]]:
    """Convert the per-parameter state of an optimiser, such as Adam's moments; it is 0 for new items.

    Args:
        state: ``state`` of the optimiser's state dict, by the parameter's place.
        names: Name of the parameter at each place.
        rows: Parameters with a row per item, as `item_rows` returns them.
        parameters: Parameters of the model for the present catalogue, by name.
        change: How the catalogues differ.

    Raises:
        InputError: If the optimiser keeps a state that cannot be divided by item.
    """
    carried = {place: dict(values) for place, values in state.items()}
    for place, name in enumerate(names):
        if name not in rows or place not in carried:
            continue
        first, here = rows[name], parameters[name]
        size = here.size(0) - change.num_items + change.num_before  # rows in the checkpoint
        for key, value in carried[place].items():
            if not isinstance(value, Tensor) or value.ndim == 0 or set(value.shape) == {1}:
                continue  # a count of steps
            if value.size(0) == size:
                fresh = value.new_zeros(here.size(0), *value.shape[1:])
                carried[place][key] = change.rows(value, fresh, first)
            elif value.shape not in (here.shape[1:], (1, *here.shape[1:])):  # one for each column
                raise InputError(f"the optimiser's {key} of {name} cannot be divided by item")
    return carried


def describe_change(change: CatalogueChange, *, titles: bool) -> str:
    """Say in one sentence what becomes of the items.

    Args:
        change: How the catalogues differ, with the titles' embeddings if new items start from them.
        titles: Whether the model reads titles.

    >>> none = torch.zeros(3, dtype=torch.bool)
    >>> describe_change(CatalogueChange(torch.tensor([1, 2, 0]), 3, none), titles=True)
    '2 items of the checkpoint are kept, 1 is new and begins untrained, 1 is gone'
    """

    def are(number: int, one: str, more: str) -> str:
        return f"{number:,} {one if number == 1 else more}"

    said = [are(change.num_kept, "item of the checkpoint is kept", "items of the checkpoint are kept")]
    new = change.source == 0
    titled = 0 if change.titled is None else int((new & change.titled.cpu()).sum())
    if titled:
        said.append(are(titled, "is new and begins from its title", "are new and begin from their titles"))
    if change.num_new > titled:
        rest = change.num_new - titled
        said.append(are(rest, "is new and begins untrained", "are new and begin untrained"))
    if change.num_gone:
        said.append(are(change.num_gone, "is gone", "are gone"))
    if not (change.num_new or change.num_gone or change.same_items):
        said.append("in another order")
    retitled = int(change.retitled.sum())
    if titles and retitled:
        said.append(are(retitled, "has another title", "have other titles"))
    return ", ".join(said)


def _with_prefix(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules(remove_duplicate=False):
        yield (f"{name}." if name else ""), module
