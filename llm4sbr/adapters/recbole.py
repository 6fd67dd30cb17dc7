"""RecBoleBackbone: RecBole's sequential models as backbones. RecBole is imported only when one is built."""

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


class RecBoleBackbone(ModuleBackbone):
    r"""A sequential model of RecBole 1.2.1 (Zhao et al., CIKM 2021, arXiv:2011.01731) as a backbone.

    The model reads what RecBole would feed it: the latest ``MAX_ITEM_LIST_LENGTH`` clicks, padded on the
    right to that width. Its session vector is both interests (see `ModuleBackbone`). Bare scores are those
    of the model's own ``full_sort_predict`` without the padding column; this is tried out on two sessions
    when the backbone is made, and a model that scores in a way not known here is refused. Known ways:

    - a product with ``item_embedding``: SASRec, GRU4Rec, NARM, STAMP, SRGNN, GCSAN, LightSANs, SINE,
      NextItNet, FEARec, and models of your own that do the same;
    - CORE: cosines over a temperature; the wrapper's fused vector is normalised, too, and dropout on the
      candidates' embeddings (``item_dropout``) stays on in training;
    - BERT4Rec: the state of a mask behind the last click, and a bias for every item. As in RecBole, the
      session's first click makes room for the mask.

    Models that need more than clicks (a user, item features, a knowledge graph) are refused when they are
    named; an instance that holds its item features, such as a SASRecF, is welcome.

    Training is this project's: cross-entropy over the catalogue. Further losses of a model (FEARec's
    contrast, the regularisers of NextItNet, GCSAN and SINE) and ``loss_type`` take no part.

    RecBole is no dependency. Its models run on this project's versions of numpy, pandas and torch::

        pip install --no-deps recbole==1.2.1
        pip install pandas colorlog colorama texttable tensorboard

    Args:
        num_items: ``V``.
        model: A model's name in ``recbole.model.sequential_recommender``, or an instance. The items of an
            instance are numbered as this project's catalogue numbers them. Who imports RecBole's models
            calls ``torch.autograd.set_detect_anomaly(False)`` afterwards: one of them turns it on.
        config: RecBole's options of a model that is named, over RecBole's own defaults, e.g.
            ``{"hidden_size": 100, "MAX_ITEM_LIST_LENGTH": 20}``. An option that the model does not read is
            refused.

    Shapes:
        - encode: `SessionBatch` -> two ``(B, d)``

    Raises:
        InputError: RecBole's models do not import, no such model or option, a model that needs more than
            clicks, of another number of items, or with scores that are not known here.
    """

    def __init__(
        self, num_items: int, model: str | nn.Module = "SASRec", config: dict[str, Any] | None = None
    ) -> None:
        settings = None
        if isinstance(model, str):
            settings = Settings.of(model, config or {})
            model = build(num_items, model, settings)
        elif config:
            raise InputError(
                "config is for a model that is named; an instance has its own",
                value=sorted(config),
                hint="Give model='SASRec', or leave config out",
            )
        self._check_model(num_items, model)
        vector = _rule(model, _VECTORS, _forward)
        super().__init__(num_items, model, partial(_read, vector), "item_embedding")
        self._score = _rule(model, _SCORES, _product)
        self._compare()
        if settings is not None:  # after the first forward: some options are read there
            settings.refuse_unread(config or {})

    def score(self, session: Tensor, interests: Interests) -> Tensor:
        """Scores as the model's ``full_sort_predict`` makes them of its session vector, ``(B, V)``."""
        scores: Tensor = self._score(self.module, session, self.item_embeddings())
        return scores

    def item_embeddings(self) -> Tensor:
        """``(V, d)``, without the padding row in front and a mask token's behind."""
        model: Any = self.module
        table: Tensor = model.item_embedding.weight
        return table[1 : self.num_items + 1]

    def _check_rows(self, table: Tensor) -> None:
        """`_check_model` has counted the items; a mask token is one row more."""

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
        """Two sessions, scored by the model itself and through this class."""
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
        theirs = theirs.view(len(ours), -1)[:, 1:]  # RecBole flattens scores here and there
        size = theirs.abs().max()  # new models may score around 1e-5: what differs is relative to that
        if theirs.shape != ours.shape or not (ours - theirs).abs().max() <= 1e-4 * size:
            raise InputError(
                f"{name} does not score by a product of its forward with item_embedding, and how it does is "
                "not known here",
                hint="Subclass RecBoleBackbone and override score",
            )


class _Clicks(dict[str, Tensor]):
    """RecBole's `Interaction` of sessions, which have clicks and nothing else."""

    def __init__(self, fields: dict[str, Tensor], model: str) -> None:
        super().__init__(fields)
        self.model = model

    def __missing__(self, field: str) -> Tensor:
        raise InputError(f"{self.model} scores with {field!r}, and an anonymous session has only clicks")


def right_padded(item_ids: Tensor, lengths: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The latest clicks of every session, padded on the right to a fixed width, as RecBole has them.

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
        if "device" in vars(part):  # RecBole's models keep a device of their own, which `to` does not move
            vars(part)["device"] = batch.item_ids.device
    width: Any = model.max_seq_length
    return vector(model, *right_padded(batch.item_ids, batch.lengths, width))


def _forward(model: Any, item_seq: Tensor, lengths: Tensor) -> Tensor:
    known = {"item_seq": item_seq, "item_seq_len": lengths}
    asked = inspect.signature(model.forward).parameters
    unknown = [name for name, p in asked.items() if name not in known and p.default is p.empty]
    if unknown:
        raise InputError(
            f"{type(model).__name__}.forward reads {', '.join(unknown)}, and a session is only its clicks",
            hint="Only models with forward(item_seq, item_seq_len) or forward(item_seq) are read",
        )
    found: Tensor = model(**{name: value for name, value in known.items() if name in asked})
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
    """What is said of a model's class, or of the first of its bases of which something is."""
    return next((rules[c.__name__] for c in type(model).__mro__ if c.__name__ in rules), otherwise)
