"""Your own model, without changes, in LLM4SBRWrapper: python experiments/wrap_your_own.py [--titles true]."""

from jsonargparse import auto_cli
from lightning import Trainer, seed_everything
from torch import Tensor, nn, ones

from llm4sbr import LLM4SBRWrapper, ModuleBackbone
from llm4sbr.datamodules import MovieLens100K
from llm4sbr.views import SentenceEncoder
from llm4sbr.views.tables import TitleTable, TitleViews


class YourModel(nn.Module):
    """A plain torch module, independent of llm4sbr."""

    def __init__(self, num_items: int, size: int = 64) -> None:
        super().__init__()
        self.items = nn.Embedding(num_items + 1, size, padding_idx=0)
        self.lstm = nn.LSTM(size, size, batch_first=True)

    def forward(self, clicks: Tensor, lengths: Tensor) -> Tensor:
        """Return the state after the last click of each session, (B, d)."""
        return self.lstm(self.items(clicks))[0][range(len(lengths)), lengths - 1]


def main(epochs: int = 3, share: float = 1.0, titles: bool = False) -> None:
    seed_everything(0)
    data = MovieLens100K(max_length=20)
    network, clicks = YourModel(data.num_items), lambda m, b: m(b.item_ids, b.lengths)
    model = LLM4SBRWrapper(ModuleBackbone(data.num_items, network, clicks, "items"), text_dim=384)
    if titles:  # views from titles alone; the ViewCache callback loads views from an LLM
        table = TitleTable(SentenceEncoder().encode(data.catalogue.titles), ones(data.num_items).bool())
        model.read_titles(table.titles[1:], table.mask[1:])
        model.view_table = TitleViews(table, ("long_term", "short_term"))
    trainer = Trainer(max_epochs=epochs, limit_train_batches=share, logger=False, enable_checkpointing=False)
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data)


auto_cli(main)
