"""What a backbone may add to two vectors: its own scores, a loss of its own, what training sessions tell."""

from __future__ import annotations

import pytest
import torch
from lightning import Trainer
from plain import plain_bare, plain_wrapped
from torch import Tensor

from llm4sbr.backbones import GRU4Rec
from llm4sbr.contracts.batch import Interests, SessionBatch
from llm4sbr.contracts.examples import Examples
from llm4sbr.datamodules import SessionDataModule
from llm4sbr.datamodules.rules import SplitBy
from llm4sbr.testing import assert_backbone, make_batch, make_examples


class Popular(GRU4Rec):
    """Adds how often training clicked an item, and a loss of its own; hands the lengths to itself."""

    def __init__(self, num_items: int, embedding_dim: int = 8) -> None:
        super().__init__(num_items, embedding_dim)
        self.register_buffer("clicks", torch.zeros(num_items))

    def read_training_sessions(self, examples: Examples) -> None:
        for clicks in examples.sessions():
            self.clicks += torch.bincount(torch.from_numpy(clicks) - 1, minlength=self.num_items)

    def encode(self, batch: SessionBatch) -> Interests:
        found = super().encode(batch)
        return found._replace(context=batch.lengths, auxiliary_loss=self.embedding.weight.square().mean())

    def score(self, session: Tensor, interests: Interests) -> Tensor:
        return super().score(session, interests) + self.clicks / interests.context.unsqueeze(1)


def test_a_backbone_with_every_hook_keeps_the_contract() -> None:
    assert_backbone(Popular)


class Forgets(Popular):
    def __init__(self, num_items: int) -> None:
        super().__init__(num_items)
        del self.clicks
        self.clicks = torch.zeros(num_items)  # no buffer: a state dict does not hold it


def test_the_check_finds_a_backbone_whose_checkpoint_forgets_the_training_sessions() -> None:
    with pytest.raises(AssertionError, match="state dict"):
        assert_backbone(Forgets)


@pytest.mark.parametrize("fusion", ["gate", "average"])
def test_a_wrapped_backbone_keeps_its_scores_and_its_loss(fusion: str) -> None:
    torch.manual_seed(0)
    backbone = Popular(9)
    backbone.read_training_sessions(make_examples([[1, 2, 2]]))
    model = plain_wrapped(backbone, text_dim=4, fusion=fusion).eval()
    batch = make_batch([[3, 4], [5]])._replace(views=torch.randn(2, 2, 4))
    fused = model.enhance(batch).session
    assert torch.equal(backbone.clicks, torch.tensor([1.0, 2, 0, 0, 0, 0, 0, 0, 0]))
    expected = fused @ backbone.item_embeddings().T + backbone.clicks / torch.tensor([[2.0], [1.0]])
    assert torch.allclose(model(batch), expected)
    losses = model.losses(batch)
    assert losses["auxiliary"] == backbone.embedding.weight.square().mean()
    parts = losses["rec_loss"] + 0.1 * (losses["alignment"] + losses["uniformity"]) + losses["auxiliary"]
    assert torch.allclose(losses["loss"], parts)
    bare = plain_bare(backbone).eval().losses(batch)
    assert torch.allclose(bare["loss"], bare["rec_loss"] + bare["auxiliary"])


@pytest.mark.parametrize("module", [plain_bare, plain_wrapped])
def test_fit_shows_the_training_sessions_once_and_no_others(module, tmp_path) -> None:
    (tmp_path / "events.csv").write_text(
        "session_id,item_id,timestamp,split\n"
        "a,x,1,train\na,y,2,train\na,y,3,train\nb,x,1,valid\nb,z,2,valid\nc,z,1,test\nc,z,2,test\n"
    )
    (tmp_path / "items.csv").write_text("item_id,title\nx,An x\ny,A y\nz,A z\n")
    data = SessionDataModule(str(tmp_path), split=SplitBy(by="column"), cache_dir=str(tmp_path / "cache"))
    model = module(Popular(3))
    trainer = Trainer(
        max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu"
    )
    trainer.fit(model, datamodule=data)
    trainer.validate(model, datamodule=data, verbose=False)
    assert model.backbone.clicks.tolist() == [1, 2, 0]


def test_sessions_of_examples_have_their_targets() -> None:
    examples = make_examples([[1, 2, 3], [4], [5, 6]])
    assert [clicks.tolist() for clicks in examples.sessions()] == [[1, 2, 3], [5, 6]]
    assert make_examples([[1]]).sessions() == []
