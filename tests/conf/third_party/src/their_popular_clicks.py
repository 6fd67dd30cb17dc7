"""The smallest backbone and the smallest head that could work."""

import torch

from llm4sbr import EmbeddingBackbone, Interests
from llm4sbr.nn.heads import ScoreHead


class MeanOfClicks(EmbeddingBackbone):
    """Mean of the clicked items' embeddings, and the last one."""

    def __init__(self, num_items, embedding_dim=32):
        super().__init__(num_items, embedding_dim)
        self.init_uniform()

    def encode(self, batch):
        clicks = self.embedding(batch.item_ids)
        mean = clicks.sum(1) / batch.lengths.unsqueeze(1)
        last = clicks[range(len(clicks)), batch.lengths - 1]
        return Interests(long_term=mean, short_term=last)

    def merge(self, interests):
        return interests.long_term + interests.short_term


class PopularFirst(ScoreHead):
    """Adds the logarithm of an item's clicks in training, times a weight."""

    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = weight

    def attach(self, backbone):
        self.register_buffer("clicks", torch.ones(backbone.num_items))

    def read_training_sessions(self, examples):
        items = torch.from_numpy(examples.clicks)
        self.clicks += torch.bincount(items[items > 0] - 1, minlength=len(self.clicks))

    def forward(self, scores, session, batch):
        return scores + self.weight * self.clicks.log()
