"""EpochSampler and SeededDataset."""

import contextlib
import random

import numpy as np
import pytest
import torch

from lorair_arch.data.foreign import SeededDataset
from lorair_arch.errors import DataError
from lorair_arch.training.loaders import EpochSampler


def epoch_of(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def test_an_epoch_is_a_permutation_of_all_indices():
    sampler = EpochSampler(range(10), 1, 0, ratio=3)
    samples = epoch_of(sampler, 2)
    assert len(samples) == len(sampler) == 30
    assert {epoch for epoch, _ in samples} == {2}
    assert sorted(index for _, index in samples) == list(range(30))


def test_epochs_and_seeds_have_orders_of_their_own():
    sampler = EpochSampler(range(50), 1, 0)
    orders = [[i for _, i in epoch_of(sampler, epoch)] for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]
    assert [i for _, i in EpochSampler(range(50), 1, 0, seed=1)] != orders[0]


@pytest.mark.parametrize('length', [12, 23])
def test_processes_share_the_batches_of_a_single_one(length):
    batch, processes = 6, 3
    alone = epoch_of(EpochSampler(range(length), 1, 0), 1)
    shares = [epoch_of(EpochSampler(range(length), processes, rank), 1) for rank in range(processes)]
    steps = len(alone) // batch
    assert [len(share) // (batch // processes) for share in shares] == [steps] * processes
    for step in range(steps):
        together = [s for share in shares for s in share[2 * step : 2 * step + 2]]
        assert sorted(together) == sorted(alone[batch * step : batch * step + batch])


def test_start_skips_in_the_resumed_epoch_alone():
    whole = [epoch_of(EpochSampler(range(20), 2, 1), epoch) for epoch in (3, 4)]
    sampler = EpochSampler(range(20), 2, 1)
    sampler.start = 12  # of both ranks
    list(sampler)  # as a loader with workers does before the epoch is set
    assert epoch_of(sampler, 3) == whole[0][6:]
    assert epoch_of(sampler, 3) == whole[0][6:]
    assert epoch_of(sampler, 4) == whole[1]
    assert sampler.start == 0


def test_fewer_samples_than_processes():
    with pytest.raises(DataError, match='^the training set has 3 samples for 4 processes; add images or raise'):
        EpochSampler(range(3), 4, 0)


class Dice(torch.utils.data.Dataset):
    opt = {'name': 'dice'}

    def __len__(self):
        return 5

    def __getitem__(self, index):
        if index == 4:
            raise RuntimeError('four')
        return index, random.random(), np.random.rand(), torch.rand(1).item()


def test_seeded_data_set_draws_by_epoch_and_index():
    dataset = SeededDataset(Dice(), 3)
    assert len(dataset) == 5 and dataset.opt['name'] == 'dice'
    first = dataset[1, 2]
    random.random(), np.random.rand(), torch.rand(1)
    assert dataset[1, 2] == first
    assert dataset[2] == dataset[0, 2]
    others = [dataset[2, 2], dataset[1, 3], dataset[1, 7], SeededDataset(Dice(), 4)[1, 2]]
    assert others[2][0] == 2, 'indices beyond the length start again'
    for other in others:
        assert all(a != b for a, b in zip(first[1:], other[1:], strict=True))


@pytest.mark.parametrize('index', [1, 4])
def test_seeded_data_set_leaves_the_generators_alone(index):
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    with contextlib.suppress(RuntimeError):
        SeededDataset(Dice(), 0)[0, index]
    assert states() == before


def test_workers_do_not_matter():
    def batches(workers):
        sampler = EpochSampler(range(4), 1, 0, ratio=4)
        dataset = SeededDataset(torch.utils.data.Subset(Dice(), range(4)), 0)
        loader = torch.utils.data.DataLoader(dataset, batch_size=2, sampler=sampler, num_workers=workers)
        return [[tensor.tolist() for tensor in batch] for batch in loader]

    assert batches(0) == batches(2)
