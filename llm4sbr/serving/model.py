"""The model of a bundle: built from plain values, of registered classes only, without a training loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from llm4sbr.contracts.backbone import SessionBackbone
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.finite import require_finite_state
from llm4sbr.contracts.mismatch import differences
from llm4sbr.contracts.rebuildable import arguments
from llm4sbr.contracts.registry import BACKBONES, HEADS, find_class, load_plugins
from llm4sbr.nn.carry_over import buffers_beside
from llm4sbr.nn.functional import unit_rows
from llm4sbr.nn.heads.item_titles import TitledTable
from llm4sbr.nn.heads.score_head import ScoreHead
from llm4sbr.nn.scorers import SCORERS, CosineScores, Scorer
from llm4sbr.nn.scoring import Scoring
from llm4sbr.nn.view_predictor import ViewPredictor
from llm4sbr.serving.wrapped_model import WrappedModel

# The modules that train these models, by name: importing them would import Lightning.
_BARE, _WRAPPED = "llm4sbr.training.sbr_module.SBRModule", "llm4sbr.training.wrapper.LLM4SBRWrapper"
_PARTS = ("backbone", "heads", "scorer")
_OF_VIEWS = ("text_dim", "fusion", "interest_of_view", "separate_projections")
_OPTIONAL = ("view_predictor",)  # later than the others, so a description may lack it


class BareModel(Scoring):
    """A bare model that only scores.

    Args:
        backbone: Session-based recommender.
        heads: Score heads, in their order.
        scorer: Scorer of session vectors and items.
    """

    def __init__(self, backbone: SessionBackbone, heads: list[ScoreHead], scorer: Scorer) -> None:
        super().__init__()
        self.assemble(backbone, heads, scorer)


class UnitItems(Scorer):
    """`CosineScores` of items that stay as they are: they are normalised once, and not for every request.

    The table is stored by columns, which makes the product a third faster on a CPU; for a retrieval, which
    reads single items, by rows.

    Args:
        scale: Scale of the cosines.
        items: Item embeddings.
        by_rows: Whether to store the table by rows.

    Shapes:
        - items: ``(V, d)``, session: ``(B, d)``
        - output: ``(B, V)``
    """

    items: Tensor

    def __init__(self, scale: float, items: Tensor, by_rows: bool = False) -> None:
        super().__init__()
        self.scale = scale
        columns = unit_rows(items).T
        self.register_buffer("items", columns if by_rows else columns.contiguous())  # (d, V)

    def of_sessions(self, session: Tensor) -> Tensor:
        """Session vectors, of the length of the scale."""
        return self.scale * unit_rows(session)

    def of_items(self, items: Tensor) -> Tensor:
        """The items of the constructor; the given ones are the same."""
        return self.items.T


def build_model(description: Mapping[str, Any], classes: Iterable[type] = ()) -> Scoring:
    """Build a model from the description that a checkpoint or a bundle holds; its weights are random.

    Args:
        description: Class and arguments of an `SBRModule` or an `LLM4SBRWrapper`. Arguments that only
            training reads, such as the loss, are neither read nor built.
        classes: Classes that may be built besides registered ones, such as your own backbone.

    Raises:
        InputError: If it is another model, names a class that is not registered, lacks an argument, or its
            parts refuse the arguments.
    """
    kind, given = description.get("class_path"), description.get("init_args")
    if kind not in (_BARE, _WRAPPED) or not isinstance(given, Mapping):
        raise InputError("only SBRModule and LLM4SBRWrapper can be served, as they are", value=kind)
    needed = [*_PARTS, *(_OF_VIEWS if kind == _WRAPPED else ())]
    lacking = [name for name in needed if name not in given]
    if lacking:
        raise InputError(f"the description of the model lacks {', '.join(lacking)}")
    needed += [name for name in _OPTIONAL if kind == _WRAPPED and name in given]
    try:
        with torch.random.fork_rng(devices=[]):
            parts = (*load_plugins(HEADS).values(), *SCORERS, ViewPredictor)
            allowed = [*_registered(given["backbone"]), *parts, *classes]
            made = arguments({"init_args": {name: given[name] for name in needed}}, allowed)
            lost = [name for name in needed if name not in made]
            if lost:
                raise InputError(
                    f"the {lost[0]} cannot be built again from plain values",
                    value=given[lost[0]],
                    hint="An instance, such as the module of a ModuleBackbone, has no plain form: register a "
                    "SessionBackbone of your own (docs/extending.md)",
                )
            _check_types(made)
            return BareModel(**made) if kind == _BARE else WrappedModel(**made)
    except InputError as error:
        if "not registered" in error.problem:
            raise InputError(
                error.problem, value=error.value, hint="Install the plug-in that registers it"
            ) from error
        raise
    except Exception as error:  # constructors of plug-ins may raise anything
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"the model cannot be built: {said}") from error


def _registered(backbone: object) -> list[type]:
    """Registered backbones that a description may name: the one class where that is known, else all."""
    path = backbone.get("class_path") if isinstance(backbone, Mapping) else None
    found = find_class(BACKBONES, path) if isinstance(path, str) else None
    return list(load_plugins(BACKBONES).values()) if found is None else [found]


def _check_types(made: Mapping[str, Any]) -> None:
    heads = made["heads"]
    if not isinstance(heads, list) or not all(isinstance(head, ScoreHead) for head in heads):
        raise InputError("the heads are not a list of score heads", value=heads)
    if not isinstance(made["scorer"], Scorer):
        raise InputError("the scorer is not a scorer", value=made["scorer"])
    if not isinstance(made.get("view_predictor"), ViewPredictor | None):
        raise InputError("the predictor of views is none", value=made["view_predictor"])


def serving_state(trained: nn.Module, served: nn.Module) -> dict[str, Tensor]:
    """The tensors of a trained model that a serving model needs.

    These are the tensors of its state dict, and buffers that a state dict leaves out: a head that applies
    after training only, such as `SequentialRules`, reads the training sessions into buffers that no
    checkpoint holds. Of these, constants that the constructor made are left out.

    Args:
        trained: Trained model.
        served: Output of `build_model` for its description.

    Raises:
        InputError: If the trained model lacks a tensor, or its state is more than tensors.
    """
    source = {**trained.state_dict(), **buffers_beside(trained)}
    fresh = buffers_beside(served)
    names = [*served.state_dict(), *fresh]
    for name in names:
        if not isinstance(source.get(name), Tensor):
            raise InputError("the model's state is not all tensors, so it cannot be served", value=name)
    constant = [name for name, value in fresh.items() if torch.equal(source[name].cpu(), value)]
    return {name: source[name] for name in names if name not in constant}


def load_serving_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load the output of `serving_state` into a model of `build_model`.

    Raises:
        InputError: If a tensor is missing, unexpected, of another shape or not finite.
    """
    beside, weights = buffers_beside(model), frozenset(dict(model.named_parameters()))
    require_finite_state(state, finite=weights)
    try:
        model.load_state_dict({name: value for name, value in state.items() if name not in beside})
    except (RuntimeError, ValueError, IndexError, KeyError) as error:  # hooks of plug-ins raise their own
        text = str(error)
        known = text.startswith("Error(s) in loading state_dict")
        said = differences(text, "bundle") if known else " ".join(text.split())
        raise InputError(f"the weights do not fit the model: {said}") from error
    for name in set(beside).intersection(state):
        owner, _, buffer = name.rpartition(".")
        setattr(model.get_submodule(owner), buffer, state[name].clone())


@torch.no_grad()
def freeze(model: Scoring, by_rows: bool = False) -> Scoring:
    """Prepare a model for serving, in place: evaluation mode, no gradients, titles folded into item tables.

    In training the table ``E + T P^T`` of `ItemTitles` is computed anew for every batch. Here its numbers are
    final, so a wrapped model reads one table, as a bare one does. Items are normalised for cosines once,
    unless the backbone computes the items that it scores anew for every batch. Predicted views are projected
    by the predictor's own last layer, unless a head reads them as text.

    Args:
        model: Model with its weights.
        by_rows: Whether the normalised items are stored by rows, for a retrieval.
    """
    model.eval().requires_grad_(False)
    for module in list(model.backbone.modules()):
        if parametrize.is_parametrized(module, "weight"):
            made: Any = module.parametrizations
            if any(isinstance(part, TitledTable) for part in made.weight):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    backbone, scorer = model.backbone, model.scorer
    fixed = type(backbone).scored_items is SessionBackbone.scored_items and not backbone.has_own_scores()
    if fixed and type(scorer) is CosineScores:
        model.scorer = UnitItems(scorer.scale, backbone.item_embeddings(), by_rows)
    if isinstance(model, WrappedModel):
        model.fold()
    return model.requires_grad_(False)
