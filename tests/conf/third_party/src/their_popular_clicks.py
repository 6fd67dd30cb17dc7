"""The smallest backbone that could work."""

from torch import nn

from llm4sbr import Interests, SessionBackbone


class MeanOfClicks(SessionBackbone):
    """Mean of the clicked items' embeddings, and the last one."""

    def __init__(self, num_items, embedding_dim=32):
        super().__init__(num_items, embedding_dim)
        self.embedding = nn.Embedding(num_items + 1, embedding_dim, padding_idx=0)

    def encode(self, batch):
        clicks = self.embedding(batch.item_ids)
        mean = clicks.sum(1) / batch.lengths.unsqueeze(1)
        last = clicks[range(len(clicks)), batch.lengths - 1]
        return Interests(long_term=mean, short_term=last)

    def merge(self, interests):
        return interests.long_term + interests.short_term

    def item_embeddings(self):
        return self.embedding.weight[1:]
