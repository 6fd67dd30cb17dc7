"""Which examples come when: once an epoch, dealt out to processes, and batches of like length by choice."""

import pytest
import torch
from shops import write_shop

from llm4sbr import InputError
from llm4sbr.datamodules import SessionDataModule, SplitBy
from llm4sbr.datamodules.sampler import FILLER, ExampleSampler


def batches(sampler, size):
    order = list(sampler)
    return [order[start : start + size] for start in range(0, len(order), size)]


def shuffled(lengths, size, pool=0, seed=0, **share):
    return ExampleSampler(lengths, size, shuffle=True, pool=pool, seed=seed, **share)


def test_every_example_comes_once_and_batches_are_of_like_length():
    """Seen to fail without the sort, and with the short batch shuffled among the others."""
    lengths = torch.randint(1, 50, (1037,), generator=torch.Generator().manual_seed(0))
    sampler = shuffled(lengths, 10, 20)
    made = batches(sampler, 10)
    assert len(sampler) == 1037
    assert sorted(index for batch in made for index in batch) == list(range(1037))
    assert len(made[-1]) == 7
    spread = torch.tensor([float(lengths[batch].max() - lengths[batch].min()) for batch in made])
    assert spread.mean() < 5  # of 49, where freely shuffled batches span about 40
    made = batches(shuffled(lengths, 10, 1000), 10)
    widths = [
        int(lengths[batch].max()) for batch in made[:-1]
    ]  # of one pool: sorted, but for the last shuffle
    assert widths != sorted(widths)
    assert widths != sorted(widths, reverse=True)


@pytest.mark.parametrize("pool", [0, 3])
def test_an_order_follows_from_the_seed_and_the_epoch_alone(pool):
    """What one process draws, another may not; their orders must agree all the same."""
    lengths = torch.arange(40) % 7
    sampler = shuffled(lengths, 4, pool, seed=1)
    first = list(sampler)
    torch.rand(3)
    assert list(shuffled(lengths, 4, pool, seed=1)) == first
    sampler.set_epoch(1)
    second = list(sampler)
    sets = [{frozenset(order[at : at + 4]) for at in range(0, 40, 4)} for order in (first, second)]
    assert sets[0] != sets[1]
    assert sorted(second) == sorted(first) == list(range(40))
    assert first != list(shuffled(lengths, 4, pool, seed=2))
    assert list(shuffled(torch.zeros(0), 4, pool)) == []


@pytest.mark.parametrize("pool", [0, 2])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 24, 25, 29])
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_batches_of_one(pool, count, processes):
    """Together they take each batch of one process once, in equally many batches each.

    Seen to fail without fillers: a process that has a batch less leaves the others waiting.
    """
    lengths = torch.arange(count) % 5 + 1
    alone = batches(shuffled(lengths, 4 * processes, pool), 4 * processes)
    parts = [
        batches(shuffled(lengths, 4, pool, num_replicas=processes, rank=rank), 4) for rank in range(processes)
    ]
    for place, whole in enumerate(alone):
        together = [index for part in parts for index in part[place] if index != FILLER]
        assert sorted(together) == sorted(whole)
    assert {len(part) for part in parts} == {len(alone)}
    for rank, part in enumerate(parts):
        sampler = shuffled(lengths, 4, pool, num_replicas=processes, rank=rank)
        assert len(sampler) == sum(len(batch) for batch in part)


def test_a_pass_can_begin_in_the_middle_of_an_epoch():
    lengths = torch.arange(30) % 5 + 1
    sampler = shuffled(lengths, 4, 2)
    sampler.set_epoch(3)
    whole = list(sampler)
    sampler.seek(3, 5)
    assert list(sampler) == whole[20:]
    assert list(sampler) == whole  # once
    assert len(sampler) == 30


def test_a_filler_has_no_target_and_a_loader_counts_epochs(tmp_path):
    shop = SessionDataModule(str(write_shop(tmp_path)), cache_dir=str(tmp_path / "cache"), batch_size=8)
    loader = shop.train_dataloader()
    assert loader.dataset.__getitems__([3, FILLER]).target.tolist()[1] == 0
    state = torch.get_rng_state()
    passes = [torch.cat([batch.example_index for batch in loader]).tolist() for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)  # seen to fail without a generator of its own
    assert passes[0] != passes[1]
    assert sorted(passes[0]) == sorted(passes[1])


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
