"""RecBoleBackbone: adapts RecBole's sequential models. RecBole is imported only to build a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from llm4sbr.adapters import ModuleBackbone
from llm4sbr.adapters.recbole_models import Settings, build
from llm4sbr.contracts.batch import Interests, SessionBatch, batch_prefixes
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import PositiveInt


class RecBoleBackbone(ModuleBackbone):
    r"""A sequential model of RecBole 1.2.1 (Zhao et al., CIKM 2021, arXiv:2011.01731) as a backbone.

    The model gets the same input as in RecBole: the latest ``MAX_ITEM_LIST_LENGTH`` clicks, right-padded to
    that width. Its session vector is used as both interests (see `ModuleBackbone`). Bare scores equal the
    model's own ``full_sort_predict`` without the padding column. The constructor checks this on two sessions
    and rejects a model with an unsupported way of scoring. Supported are:

    - a product with ``item_embedding``: SASRec, GRU4Rec, NARM, STAMP, SRGNN, GCSAN, LightSANs, SINE,
      NextItNet, FEARec, and your own models with such scores;
    - CORE: cosines over a temperature; the wrapper's fused vector is normalised, too, and dropout on the
      candidates' embeddings (``item_dropout``) stays active in training;
    - BERT4Rec: the state of a mask after the last click, and a bias for every item. As in RecBole, the
      session's first click is dropped to make room for the mask.

    Models that need more than clicks (a user, item features, a knowledge graph) are rejected if given by
    name; an instance that holds its item features, such as a SASRecF, is accepted.

    Training uses this project's loss, cross-entropy over the catalogue. Further losses of a model (FEARec's
    contrastive loss, the regularisers of NextItNet, GCSAN and SINE) and ``loss_type`` are ignored.

    RecBole is not a dependency. Its models run with this project's versions of numpy, pandas and torch::

        pip install --no-deps recbole==1.2.1
        pip install pandas colorlog colorama texttable tensorboard

    Args:
        num_items: ``V``.
        model: Name of a model in ``recbole.model.sequential_recommender``, or an instance. The item numbers
            of an instance must be those of this project's catalogue. If you import RecBole's models
            yourself, call ``torch.autograd.set_detect_anomaly(False)`` afterwards: one of them enables it.
        config: RecBole's options of a model given by name, which override RecBole's defaults, e.g.
            ``{"hidden_size": 100, "MAX_ITEM_LIST_LENGTH": 20}``. An option that the model does not read is
            an error.

    Shapes:
        - encode: `SessionBatch` -> two ``(B, d)``

    Raises:
        InputError: If RecBole's models cannot be imported, the model or an option does not exist, or the
            model needs more than clicks, has another number of items or an unsupported way of scoring.
    """

    def __init__(
        self, num_items: PositiveInt, model: str | nn.Module = "SASRec", config: dict[str, Any] | None = None
    ) -> None:
        settings = None
        if isinstance(model, str):
            settings = Settings.of(model, config or {})
            model = build(num_items, model, settings)
        elif config:
            raise InputError(
                "config is for a model given by name; an instance has its own",
                value=sorted(config),
                hint="Give model='SASRec', or leave config out",
            )
        self._check_model(num_items, model)
        vector = _rule(model, _VECTORS, _forward)
        super().__init__(num_items, model, partial(_read, vector), "item_embedding")
        self._score = _rule(model, _SCORES, _product)
        self._compare()
        if settings is not None:  # after the first forward, which also reads options
            settings.refuse_unread(config or {})

    def score(self, session: Tensor, interests: Interests) -> Tensor:
        """Scores as the model's ``full_sort_predict`` computes them from a session vector, ``(B, V)``."""
        scores: Tensor = self._score(self.module, session, self.item_embeddings())
        return scores

    def item_embeddings(self) -> Tensor:
        """Item embeddings, ``(V, d)``, without the first row (padding) and a last row for a mask token."""
        model: Any = self.module
        table: Tensor = model.item_embedding.weight
        return table[1 : self.num_items + 1]

    def item_rows(self) -> dict[str, int]:
        """The item embedding, between padding and a mask token, and BERT4Rec's bias of every item."""
        bias = {"module.output_bias": 1} if self._score is _biased else {}
        return {**super().item_rows(), **bias}

    def _check_rows(self, table: Tensor) -> None:
        """No check: `_check_model` counts the items, and a mask token adds a row."""

    def _check_model(self, num_items: int, model: Any) -> None:
        name = type(model).__name__
        wanted = ("ITEM_SEQ", "ITEM_SEQ_LEN", "max_seq_length", "n_items", "full_sort_predict")
        missing = [attribute for attribute in wanted if not hasattr(model, attribute)]
        if missing:
            raise InputError(
                f"{name} is not a sequential model of RecBole: it has no {', '.join(missing)}",
                hint="Wrap other modules in llm4sbr.ModuleBackbone",
            )
        if model.n_items != num_items + 1:
            raise InputError(
                f"{name} must have n_items = {num_items + 1}: the catalogue's {num_items} and padding",
                value=model.n_items,
            )
        if not isinstance(getattr(model, "item_embedding", None), nn.Embedding):
            raise InputError(
                f"{name} has no item_embedding: its scores are not made of a session vector and item vectors"
            )

    @torch.no_grad()
    def _compare(self) -> None:
        """Check on two sessions that the model itself and this class give the same scores."""
        model: Any = self.module
        name = type(model).__name__
        device = model.item_embedding.weight.device
        prefixes = batch_prefixes([[1], [self.num_items, 1, self.num_items]], graph=False)
        batch = prefixes._replace(item_ids=prefixes.item_ids.to(device), lengths=prefixes.lengths.to(device))
        item_seq, lengths = right_padded(batch.item_ids, batch.lengths, model.max_seq_length)
        modes = [(part, part.training) for part in self.modules()]
        self.eval()
        try:
            with torch.random.fork_rng(devices=[]):
                ours = self(batch)
                interaction = _Clicks({model.ITEM_SEQ: item_seq, model.ITEM_SEQ_LEN: lengths}, name)
                theirs = model.full_sort_predict(interaction)
        finally:
            for part, mode in modes:
                part.training = mode
        theirs = theirs.view(len(ours), -1)[:, 1:]  # some of RecBole's models flatten scores
        size = theirs.abs().max()  # scores of a new model may be about 1e-5, so compare relative differences
        if theirs.shape != ours.shape or not (ours - theirs).abs().max() <= 1e-4 * size:
            raise InputError(
                f"{name} does not score by a product of its forward with item_embedding, and its way of "
                "scoring is not supported",
                hint="Subclass RecBoleBackbone and override score",
            )


class _Clicks(dict[str, Tensor]):
    """RecBole's `Interaction` for sessions, which have only clicks."""

    def __init__(self, fields: dict[str, Tensor], model: str) -> None:
        super().__init__(fields)
        self.model = model

    def __missing__(self, field: str) -> Tensor:
        raise InputError(f"{self.model} scores with {field!r}, and an anonymous session has only clicks")


def right_padded(item_ids: Tensor, lengths: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The latest clicks of every session, right-padded to a fixed width as in RecBole.

    Shapes:
        - item_ids: ``(B, L)``, lengths: ``(B,)``
        - output: ``(B, width)``, ``(B,)``

    >>> right_padded(torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([3, 1]), 2)
    (tensor([[2, 3],
            [4, 0]]), tensor([2, 1]))
    """
    first = (lengths - width).clamp(min=0).unsqueeze(1)  # (B, 1)
    column = first + torch.arange(width, device=item_ids.device)  # (B, width)
    clicks = item_ids.gather(1, column.clamp(max=item_ids.size(1) - 1))
    return clicks * (column < lengths.unsqueeze(1)), lengths.clamp(max=width)


def _read(vector: Callable[[Any, Tensor, Tensor], Tensor], model: nn.Module, batch: SessionBatch) -> Tensor:
    for part in model.modules():
        if "device" in vars(part):  # RecBole's models store a device, which `to` does not update
            vars(part)["device"] = batch.item_ids.device
    width: Any = model.max_seq_length
    return vector(model, *right_padded(batch.item_ids, batch.lengths, width))


def _forward(model: Any, item_seq: Tensor, lengths: Tensor) -> Tensor:
    known = {"item_seq": item_seq, "item_seq_len": lengths}
    parameters = inspect.signature(model.forward).parameters
    unknown = [name for name, p in parameters.items() if name not in known and p.default is p.empty]
    if unknown:
        raise InputError(
            f"{type(model).__name__}.forward reads {', '.join(unknown)}, and a session is only its clicks",
            hint="Only models with forward(item_seq, item_seq_len) or forward(item_seq) are read",
        )
    found: Tensor = model(**{name: value for name, value in known.items() if name in parameters})
    if not isinstance(found, Tensor) or found.ndim != 2:
        raise InputError(
            f"{type(model).__name__}.forward does not give one vector per session",
            value=tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__,
        )
    return found


def _mask_state(model: Any, item_seq: Tensor, lengths: Tensor) -> Tensor:
    states = model(model.reconstruct_test_data(item_seq, lengths))  # (B, width, d)
    state: Tensor = model.gather_indexes(states, lengths - 1)
    return state


def _product(model: Any, session: Tensor, items: Tensor) -> Tensor:
    return session @ items.T


def _cosine(model: Any, session: Tensor, items: Tensor) -> Tensor:
    cosines = normalize(session, dim=-1) @ normalize(model.item_dropout(items), dim=-1).T
    return cosines / float(model.temperature)


def _biased(model: Any, session: Tensor, items: Tensor) -> Tensor:
    scores: Tensor = session @ items.T + model.output_bias[1:]
    return scores


_VECTORS = {"BERT4Rec": _mask_state}
_SCORES = {"BERT4Rec": _biased, "CORE": _cosine}


def _rule(model: Any, rules: dict[str, Any], otherwise: Any) -> Any:
    """Look up the entry of a model's class or of its first base class with an entry."""
    return next((rules[c.__name__] for c in type(model).__mro__ if c.__name__ in rules), otherwise)
