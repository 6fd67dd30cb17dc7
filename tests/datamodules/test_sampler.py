"""Batches of like length: every example once, less padding, and still an order by chance."""

import pytest
import torch
from shops import write_shop

from llm4sbr import InputError
from llm4sbr.datamodules import SessionDataModule, SplitBy
from llm4sbr.datamodules.sampler import BucketSampler


def batches(sampler, size):
    order = list(sampler)
    return [order[start : start + size] for start in range(0, len(order), size)]


def test_every_example_comes_once_and_batches_are_of_like_length():
    """Seen to fail without the sort, and with the short batch shuffled among the others."""
    torch.manual_seed(0)
    lengths = torch.randint(1, 50, (1037,))
    sampler = BucketSampler(lengths, batch_size=10, pool=20)
    made = batches(sampler, 10)
    assert len(sampler) == 1037
    assert sorted(index for batch in made for index in batch) == list(range(1037))
    assert len(made[-1]) == 7
    spread = torch.tensor([float(lengths[batch].max() - lengths[batch].min()) for batch in made])
    assert spread.mean() < 5  # of 49, where freely shuffled batches span about 40
    made = batches(BucketSampler(lengths, batch_size=10, pool=1000), 10)
    widths = [
        int(lengths[batch].max()) for batch in made[:-1]
    ]  # of one pool: sorted, but for the last shuffle
    assert widths != sorted(widths)
    assert widths != sorted(widths, reverse=True)


def test_an_epoch_differs_from_the_next_and_follows_the_global_seed():
    lengths = torch.arange(40) % 7
    sampler = BucketSampler(lengths, 4, 3)
    torch.manual_seed(1)
    first, second = list(sampler), list(sampler)
    torch.manual_seed(1)
    torch.rand(3)  # what one process draws, another may not; their orders must agree all the same
    again = BucketSampler(lengths, 4, 3)
    assert [first, second] == [list(again), list(again)]
    torch.manual_seed(2)
    assert first != list(BucketSampler(lengths, 4, 3))
    assert first != second
    assert {frozenset(b) for b in batches(first, 4)} != {frozenset(b) for b in batches(second, 4)}
    assert list(BucketSampler(torch.zeros(0), 4, 3)) == []


def test_the_data_module_trains_on_them_and_evaluates_in_order(tmp_path):
    folder = str(write_shop(tmp_path, clicks=lambda session: 2 + session % 6))
    options = {"split": SplitBy(by="column"), "cache_dir": str(tmp_path / "cache")}
    shop = SessionDataModule(folder, batch_size=8, bucket=4, **options)
    seen = torch.cat([batch.example_index for batch in shop.train_dataloader()])
    assert sorted(seen.tolist()) == list(range(len(shop.examples("train"))))
    test = torch.cat([batch.example_index for batch in shop.test_dataloader()])
    assert (test.diff() == 1).all()
    with pytest.raises(InputError, match="bucket"):
        SessionDataModule(folder, bucket=-1)
