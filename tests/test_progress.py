"""Progress: the place in the data, whatever continues the training; and what a step draws."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from basicsr.models.sr_model import SRModel
from hypothesis import given
from hypothesis import strategies as st

from lorair_arch.training import train as training
from lorair_arch.training.loaders import EpochSampler
from lorair_arch.training.resume import Progress
from tests.miniature import stage, write_data, write_options
from tests.photos import photo, write

SIZES = st.integers(1, 4), st.integers(1, 3), st.integers(12, 40)


def taken(progress, start_epoch, start, steps):
    """Gives (epoch, index) of every image that all processes take in so many steps, as BasicSR's loop goes on."""
    samplers = [EpochSampler(range(progress.samples), progress.processes, r) for r in range(progress.processes)]
    found, epoch = [], start_epoch
    for sampler in samplers:
        sampler.start = start
    while len(found) < steps:
        shares = []
        for sampler in samplers:
            sampler.set_epoch(epoch)
            mine = list(sampler)
            shares.append([mine[i : i + progress.batch] for i in range(0, len(mine), progress.batch)])
        found += [set(sum(batches, [])) for batches in zip(*shares) if len(batches[0]) == progress.batch]
        epoch += 1
    return found[:steps]


def settings(processes, batch, images):
    return Progress(processes, batch, images, images, seed=0, torch='2')


@given(*SIZES, st.integers(0, 30), st.integers(1, 12))
def test_any_iteration_can_be_continued_from(processes, batch, images, iteration, more):
    progress = settings(processes, batch, images)
    again = progress.resumed(progress, iteration)
    assert again == progress
    assert taken(again, *again.place(iteration), more) == taken(progress, 0, 0, iteration + more)[iteration:]


@given(*SIZES, st.tuples(*SIZES[:2]), st.integers(0, 30), st.integers(1, 12))
def test_other_processes_go_on_with_the_next_image(processes, batch, images, others, iteration, more):
    before = settings(processes, batch, images)
    now = settings(*others, images).resumed(before, iteration)
    (epoch, start), first = before.place(iteration), now.place(iteration)
    assert first == ((epoch, start) if start + now.step <= images else (epoch + 1, 0))
    alone = EpochSampler(range(images), 1, 0)
    alone.set_epoch(first[0])
    order = list(alone)
    expected = [set(order[i : i + now.step]) for i in range(first[1], images - now.step + 1, now.step)]
    assert taken(now, *first, more)[: len(expected)] == expected[:more]
    # and later interruptions find the place again
    assert taken(now, *now.place(iteration + more), 5) == taken(now, *first, more + 5)[more:]


@given(*SIZES, st.integers(1, 40))
def test_the_last_epoch_is_long_enough_and_not_empty(processes, batch, images, total):
    progress = settings(processes, batch, images)
    assert progress.last_epoch(total) == max(epoch for batch in taken(progress, 0, 0, total) for epoch, _ in batch)


def test_an_order_that_has_changed_begins_anew():
    before = settings(1, 4, 14)
    for change in ({'images': 15, 'samples': 15}, {'samples': 28}, {'seed': 1}):
        now = replace(before, **change).resumed(before, 2)
        assert now.place(2) == (1, 0)
        assert replace(before, **change).resumed(before, 0).place(0) == (0, 0)


def test_changes_in_words():
    before = settings(2, 2, 14)
    assert before.changes(before) == []
    assert settings(1, 4, 14).changes(before) == [
        'number of processes 1 (was 2)', 'images in a step of each process 4 (was 2)',
    ]  # fmt: skip
    assert replace(before, processes=3, torch='3').changes(before) == [
        'number of processes 3 (was 2)', 'images in a step of all 6 (was 4)', 'version of PyTorch 3 (was 2)',
    ]  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    list_images(7)
    return tmp_path


def list_images(count):
    Path('images.txt').write_text(''.join(f'{number}.png\n' for number in range(count)))


@pytest.fixture
def steps(monkeypatch):
    """The numbers of the images that each step of a training takes, and what is drawn in it."""
    found = []
    feed_data, optimize_parameters = SRModel.feed_data, SRModel.optimize_parameters

    def record_images(self, data):
        self.images = [int(Path(path).stem) for path in data['lq_path']]
        feed_data(self, data)

    def record_draws(self, current_iter):
        found.append((self.images, torch.rand(1).item(), random.random(), np.random.rand()))
        optimize_parameters(self, current_iter)

    monkeypatch.setattr(SRModel, 'feed_data', record_images)
    monkeypatch.setattr(SRModel, 'optimize_parameters', record_draws)
    return found


def train(total, batch=2, **changes):
    opt = stage('sr') | changes
    opt['train']['total_iter'] = total
    opt['logger'] |= {'save_checkpoint_freq': 1, 'use_tb_logger': False}
    opt['datasets']['train'] |= {'batch_size_per_gpu': batch, 'meta_info_file': 'images.txt'}
    training.run(write_options(Path(), opt), auto_resume=True)


def order(epoch, images=7):
    sampler = EpochSampler(range(images), 1, 0, seed=3)
    sampler.set_epoch(epoch)
    return [index for _, index in sampler]


def test_another_batch_goes_on_with_the_next_image(here, steps, capfd):
    train(1, batch=3)
    train(5)
    assert [images for images, *_ in steps] == [
        order(0)[:3], order(0)[3:5], order(0)[5:7], order(1)[:2], order(1)[2:4],
    ]  # fmt: skip
    assert (
        'warning: experiments/sr/training_states/1.state was saved with other settings: images in a step of each '
        'process 2 (was 3), images in a step of all 2 (was 3); going on after 3 images of epoch 0\n'
    ) in capfd.readouterr().err


def test_another_data_set_begins_a_new_epoch(here, steps, capfd):
    train(1)
    write(here / 'data/train_gt/7.png', photo(7, 24, 28))
    write(here / 'data/train_half/7.png', photo(7, 24, 28)[::2, ::2])
    list_images(8)
    train(2)
    assert [images for images, *_ in steps] == [order(0)[:2], order(1, images=8)[:2]]
    assert (
        'images in the data set 8 (was 7), images in an epoch 8 (was 7); going on after 0 images of epoch 1\n'
    ) in capfd.readouterr().err


def test_the_same_settings_are_not_spoken_of(here, steps, capfd):
    train(1)
    train(2)
    assert 'other settings' not in capfd.readouterr().err


def test_what_a_step_draws_does_not_depend_on_what_was_before(here, steps):
    train(4, name='whole')
    whole = steps.copy()
    assert len({draws for _, *drawn in whole for draws in drawn}) == 12
    steps.clear()
    train(2, val=None)
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    train(4)
    assert steps == whole
