"""Every registered backbone of ours, bare or wrapped, with a model's heads, and batches for it."""

import torch
from plain import plain_bare, plain_wrapped

from llm4sbr.contracts.registry import BACKBONES, load_plugins
from llm4sbr.nn.heads import ItemTitles, TextScores
from llm4sbr.testing import make_batch, make_examples

OURS = {
    name: kind
    for name, kind in load_plugins(BACKBONES).items()
    if kind.__module__.startswith("llm4sbr.backbones.")
}
ITEMS, TEXT = 11, 6
TRAINING = [[1, 2, 3, 2], [5, 5, 5], [9, 8, 7, 6, 1], [4, 2, 10, 11], [6, 7, 8, 2]]


def make(name, wrapped, heads=(), **options):
    """A model with the heads that have anything to do with padding, views or titles, and others."""
    backbone = OURS[name](ITEMS, 8)
    backbone.read_training_sessions(make_examples(TRAINING))
    if not wrapped:
        return plain_bare(backbone, heads=heads, **options)
    heads = [TextScores(3), ItemTitles(3), *heads]
    model = plain_wrapped(backbone, text_dim=TEXT, heads=heads, **options)
    titles = torch.nn.functional.normalize(torch.randn(ITEMS, TEXT), dim=1)
    model.read_titles(titles, torch.ones(ITEMS, dtype=torch.bool))
    return model


def seen(sessions, views, padding=0, alike=False):
    """A batch; of the views none, all, or all but one is known."""
    batch = make_batch(sessions, [1 + len(session) % ITEMS for session in sessions], padding=padding)
    if views == "none given":
        return batch
    known = torch.ones(len(sessions), 2, dtype=torch.bool)
    known[0, 0] = views == "known"
    if views == "masked":
        known[:] = False
    texts = torch.randn(1 if alike else len(sessions), 2, TEXT).expand(len(sessions), 2, TEXT)
    return batch._replace(views=texts, view_mask=known)
