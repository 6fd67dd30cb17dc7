"""What training must never do, for every backbone, bare and wrapped, with everything switched on."""

import pytest
import torch
from every_backbone import ITEMS, OURS, make, seen
from lightning.pytorch import Trainer, seed_everything
from shops import PARTS, write_shop

from llm4sbr.datamodules import SessionDataModule, SplitBy

HARD = {
    "one session": [[3, 4, 3]],
    "one session of one click": [[3]],
    "sessions of one click": [[1], [2], [11], [1]],
    "one repeated item": [[2, 2, 2, 2]],
    "identical sessions": [[1, 2, 3], [1, 2, 3], [1, 2, 3]],
    "long beside short": [[1 + n % ITEMS for n in range(50)], [4]],
    "an item that training never saw": [[ITEMS], [1, ITEMS]],
}


@pytest.mark.parametrize("views", ["none given", "masked", "one masked", "known"])
@pytest.mark.parametrize("name", OURS)
def test_hard_batches_have_finite_losses_and_gradients(name, views):
    """The last batch of an epoch may be any of them. Seen to fail with a distance instead of its square."""
    torch.manual_seed(0)
    for wrapped in (False, True) if views == "none given" else (True,):
        model = make(name, wrapped).train()
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for what, sessions in HARD.items():
            optimizer.zero_grad()
            losses = model.losses(seen(sessions, views, alike=what == "identical sessions"))
            losses["loss"].backward()
            assert all(value.isfinite() for value in losses.values()), (what, losses)
            for parameter in model.parameters():
                assert parameter.grad is None or parameter.grad.isfinite().all(), what
            optimizer.step()


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("name", OURS)
def test_padding_is_not_attended_counted_or_recommended(name, wrapped):
    """Scores and every loss are the same with more of it, and there is no item 0.

    Seen to fail with a mean over all columns (STAMP).
    """
    torch.manual_seed(0)
    model = make(name, wrapped, top_k=2 * ITEMS).eval()
    with torch.no_grad():  # fresh weights are so small that hardly anything shows
        for parameter in model.parameters():
            parameter.normal_(0, 0.4)
    sessions = [[1, 2, 3, 2], [4], [5, 5, 5], [9, 8, 7, 6, 1]]
    torch.manual_seed(1)
    batch = seen(sessions, "one masked")
    torch.manual_seed(1)
    padded = seen(sessions, "one masked", padding=6)
    assert padded.item_ids.shape[1] == 11
    with torch.no_grad():
        torch.testing.assert_close(model(padded), model(batch), rtol=1e-4, atol=1e-5)
        both = [model.losses(one) for one in (batch, padded)]
    for loss, value in both[0].items():
        if loss not in ("auxiliary", "loss"):  # a contrast may shuffle
            torch.testing.assert_close(both[1][loss], value, rtol=1e-4, atol=1e-5)
    assert model(batch).shape == (4, ITEMS)
    items = model.predict_step(batch, 0).items
    assert items.sort(dim=1).values.tolist() == [list(range(1, ITEMS + 1))] * 4


@pytest.mark.parametrize("name", OURS)
def test_the_same_seed_gives_the_same_numbers(name, tmp_path):
    """Weights to the last bit, and other ones with another seed."""
    shop = write_shop(tmp_path / "shop", [f"Bead {n}" for n in range(ITEMS)], sessions=30,
                      clicks=lambda s: 2 + s % 4, parts=PARTS)  # fmt: skip
    made = []
    for seed in (4, 4, 5):
        seed_everything(seed, verbose=False)
        data = SessionDataModule(
            str(shop), split=SplitBy(by="column"), batch_size=8, cache_dir=str(tmp_path / "cache")
        )
        model = make(name, True, session_dropout=0.2, view_dropout=0.2)
        trainer = Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(model, data)
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        made.append((metrics, torch.cat([p.detach().flatten() for p in model.parameters()])))
    assert made[0][0] == made[1][0]
    assert torch.equal(made[0][1], made[1][1])
    assert not torch.equal(made[0][1], made[2][1])
