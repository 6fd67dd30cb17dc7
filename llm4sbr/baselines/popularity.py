"""Popularity over all training sessions or within the current session."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from llm4sbr.baselines.clicks import clicks_of, finish
from llm4sbr.contracts.batch import SessionBatch
from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.examples import Examples
from llm4sbr.nn.counting import FloatArray, sessions_of


class Popularity:
    r"""The most clicked items of training (POP), or of the current session first (S-POP).

    POP and S-POP of Hidasi et al., ICLR 2016, arXiv:1511.06939. With :math:`c_i` the clicks on an item in
    training and :math:`c_i(s)` those in the current session, POP scores :math:`c_i` and S-POP

    .. math:: c_i(s) + \frac{c_i}{1 + \max_j c_j}

    so that popularity in training breaks ties between items with equal clicks in the session.

    Args:
        within_session: Whether to use S-POP.
        remind: Whether clicked items may be recommended again; S-POP requires it.

    Shapes:
        - scores: `SessionBatch` -> ``(B, V)``
    """

    def __init__(self, within_session: bool = False, remind: bool = True) -> None:
        if within_session and not remind:
            raise InputError("S-POP recommends what was clicked", value="remind=False", hint="Leave one out")
        self.within_session, self.remind = within_session, remind
        self._popularity: FloatArray | None = None

    def fit(self, examples: Examples, num_items: int) -> None:
        """Count the clicks of every training session."""
        clicks = np.concatenate(sessions_of(examples))
        count = np.bincount(clicks, minlength=num_items + 1)[1:].astype(np.float64)  # (V,)
        self._popularity = count / (1 + count.max()) if self.within_session else count

    def scores(self, batch: SessionBatch) -> Tensor:
        """Scores over the catalogue, ``(B, V)``.

        Raises:
            InputError: If the model has not been fitted.
        """
        if self._popularity is None:
            raise InputError("Popularity has not counted any sessions", hint="Call fit first")
        scores = np.tile(self._popularity, (len(batch.lengths), 1))  # (B, V)
        if self.within_session:
            row, column = batch.padding_mask().nonzero(as_tuple=True)
            item = batch.item_ids[row, column].cpu().numpy()
            np.add.at(scores, (row.cpu().numpy(), item - 1), 1)
        return finish(scores, clicks_of(batch), self.remind, batch)
