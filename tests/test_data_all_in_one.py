"""AllInOneDataset: what it yields, and that this depends on (seed, epoch, index) alone."""

import pickle
from collections import Counter

import cv2
import numpy as np
import pytest
import torch

from lorair_arch.data import degradations
from lorair_arch.data.all_in_one_dataset import AllInOneDataset, collate_whole
from lorair_arch.data.lmdb_writer import LmdbWriter
from lorair_arch.errors import DataError, OptionsError, sentence
from lorair_arch.training.loaders import EpochSampler
from tests.photos import photo, write, write_pairs


@pytest.fixture
def sources(tmp_path):
    """Pairs in folders, pairs in LMDBs and clean images with each two degradations."""
    with LmdbWriter(str(tmp_path / 'lq.lmdb')) as lq, LmdbWriter(str(tmp_path / 'gt.lmdb')) as gt:
        for seed in range(4):
            lq.put(f'k{seed}', photo(seed, 45, 37) // 2)
            gt.put(f'k{seed}', photo(seed, 45, 37))
    pairs = write_pairs(tmp_path)
    return [
        {'degradation': 'rain', **pairs},
        {'degradation': 'lowlight', 'dataroot_lq': f'{tmp_path}/lq.lmdb', 'dataroot_gt': f'{tmp_path}/gt.lmdb'},
        {'dataroot_gt': pairs['dataroot_gt'], 'degrade': {'type': 'noise', 'sigma': 25}},
        {'dataroot_gt': f'{tmp_path}/gt.lmdb', 'degrade': {'type': 'haze'}},
    ]


def training_set(sources, **more):
    options = {'name': 'x', 'phase': 'train', 'gt_size': 16, 'use_hflip': True, 'use_rot': True, 'seed': 5}
    return AllInOneDataset({**options, 'sources': sources, **more})


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) if torch.is_tensor(a[k]) else a[k] == b[k] for k in a)


def test_training_sample(sources):
    dataset = training_set(sources)
    assert len(dataset) == 14
    for i in range(30):
        sample = dataset[0, i]
        assert set(sample) == {'lq', 'gt', 'degradation', 'lq_path', 'gt_path'}
        for side in ('lq', 'gt'):
            image = sample[side]
            assert image.shape == (3, 16, 16) and image.dtype == torch.float32 and image.is_contiguous()
            assert image.min() >= 0 and image.max() <= 1
        assert sample['degradation'] in ('rain', 'lowlight', 'noise', 'haze')


@pytest.mark.parametrize('more', [{}, {'pad_small': True, 'gt_size': 60}])
def test_scenes_are_degraded_whole_and_all_else_as_crops(sources, monkeypatch, more):
    sizes = set()

    def spy(image, rng):
        sizes.add(image.shape[:2])
        return image / 2

    for name in ('scenic', 'plain'):
        monkeypatch.setitem(degradations.DEGRADATIONS, name, spy)
        monkeypatch.setitem(degradations.LIMITS, name, {})
    monkeypatch.setattr(degradations, 'OF_SCENES', {'scenic'})
    size, gt = more.get('gt_size', 16), sources[1]['dataroot_gt']
    for degrade, seen in (('plain', (size, size)), ('scenic', (45, 37))):
        steps = [{'type': 'clean'}, {'type': degrade}]
        dataset = training_set([{'degradation': 'x', 'dataroot_gt': gt, 'degrade': steps}], **more)
        for i in range(8):
            sample = dataset[0, i]
            assert sample['lq'].shape == sample['gt'].shape == (3, size, size)
            assert torch.allclose(sample['lq'], sample['gt'] / 2, atol=1 / 255)  # cropped and turned together
        assert sizes == {seen}
        sizes.clear()


def test_pairs_are_cropped_and_turned_together(sources):
    dataset = training_set(sources[1:2])
    for i in range(40):
        sample = dataset[0, i]
        assert torch.equal((sample['lq'] * 255).round(), (sample['gt'] * 255).round() // 2)


def test_crops_come_from_everywhere_in_every_orientation(tmp_path):
    height, width = 6, 7
    coded = np.zeros((height, width, 3), np.uint8)
    coded[..., 0], coded[..., 1] = np.mgrid[:height, :width] * 10
    write(tmp_path / 'a.png', coded)
    dataset = training_set([{'dataroot_gt': str(tmp_path), 'degrade': {'type': 'jpeg'}}], gt_size=4)
    seen, orientations = set(), set()
    for i in range(600):
        rows, columns = (dataset[0, i]['gt'][:2] * 25.5).round().int().tolist()
        top, left = np.min(rows), np.min(columns)
        seen.add((top, left))
        orientations.add((rows[0][0] - top, rows[0][-1] - top, columns[0][0] - left, columns[0][-1] - left))
    assert len(seen) == 3 * 4
    assert len(orientations) == 8
    plain = training_set(dataset.opt['sources'], gt_size=4, use_hflip=False, use_rot=False)
    assert all((plain[0, i]['gt'][0].diff(dim=0) > 0).all() for i in range(20))


def test_validation_enumerates_whole_images_in_order(sources):
    dataset = AllInOneDataset({'name': 'x', 'phase': 'val', 'sources': sources})
    samples = list(dataset)
    assert [s['degradation'] for s in samples] == ['rain'] * 3 + ['lowlight'] * 4 + ['noise'] * 3 + ['haze'] * 4
    assert np.array_equal(samples[4]['gt'].permute(1, 2, 0), photo(1, 45, 37).astype(np.float32) / 255)
    dataset.set_epoch(3)
    assert all(equal(a, b) for a, b in zip(samples, dataset, strict=True))
    assert not torch.equal(samples[7]['lq'], samples[7]['gt'])
    assert samples[7]['lq_path'] == samples[7]['gt_path']


def test_what_is_made_on_the_fly_has_8_bits(sources):
    lq = AllInOneDataset({'name': 'x', 'phase': 'val', 'sources': sources[2:]})[0]['lq']
    assert torch.equal(lq, (lq * 255).round() / 255)


def test_degradations_are_drawn_evenly_whatever_their_sizes(sources):
    dataset = training_set(sources)
    drawn = Counter(dataset[0, i]['degradation'] for i in range(800))
    assert len(drawn) == 4
    assert all(count == pytest.approx(200, abs=45) for count in drawn.values()), drawn


def test_sources_of_one_degradation_share_by_size(sources):
    sources[1]['degradation'] = 'rain'  # 3 pairs in folders and 4 in LMDBs
    dataset = training_set(sources)
    samples = [dataset[0, i] for i in range(900)]
    drawn = Counter('.lmdb' in sample['gt_path'] for sample in samples if sample['degradation'] == 'rain')
    assert sum(drawn.values()) == pytest.approx(300, abs=60)
    assert drawn[True] / drawn[False] == pytest.approx(4 / 3, rel=0.3)


def test_weights(sources):
    for source, weight in zip(sources, (3, 1, 0.5, 0.5), strict=True):
        source['weight'] = weight
    dataset = training_set(sources)
    drawn = Counter(dataset[0, i]['degradation'] for i in range(800))
    assert drawn['rain'] == pytest.approx(480, abs=60) and drawn['noise'] == pytest.approx(80, abs=35)


def batches(dataset, epochs, **loader):
    sampler = EpochSampler(dataset, 1, 0, ratio=2)
    loader = torch.utils.data.DataLoader(dataset, batch_size=4, sampler=sampler, drop_last=True, **loader)
    for epoch in epochs:
        sampler.set_epoch(epoch)
        yield from loader


@pytest.mark.parametrize('workers', [1, 2])
def test_samples_do_not_depend_on_workers(sources, workers):
    dataset = training_set(sources)
    alone = list(batches(dataset, (0, 1)))
    assert len(alone) == 14
    persistent = batches(dataset, (0, 1), num_workers=workers, persistent_workers=True)
    assert all(equal(a, b) for a, b in zip(alone, persistent, strict=True))


def test_samples_do_not_depend_on_what_was_read_before_or_on_global_generators(sources):
    first = training_set(sources)[2, 7]
    dataset = training_set(sources)
    for i in range(5):
        dataset[0, i]
    np.random.seed(99)
    state = np.random.get_state()[1].copy()
    assert equal(dataset[2, 7], first)
    assert np.array_equal(state, np.random.get_state()[1])


def test_a_spawned_worker_can_be_sent_the_data_set(sources):
    dataset = training_set(sources)
    copy = pickle.loads(pickle.dumps(dataset))
    assert all(equal(dataset[0, i], copy[0, i]) for i in range(10))


def test_epochs_and_seeds_differ(sources):
    dataset = training_set(sources)
    assert not equal(dataset[0, 3], dataset[1, 3])
    assert not equal(dataset[0, 3], dataset[0, 4])
    assert not equal(dataset[0, 3], training_set(sources, seed=6)[0, 3])
    at_zero = dataset[3]
    assert equal(at_zero, dataset[0, 3])
    dataset.set_epoch(1)
    assert equal(dataset[3], dataset[1, 3])
    with pytest.raises(IndexError):
        dataset[14]


def test_too_small_image(sources):
    with pytest.raises(DataError) as caught:
        training_set(sources[:1], gt_size=48)[0, 0]
    assert '/gt/img' in str(caught.value)
    expected = '(40 x 48 pixels) is smaller than gt_size (48); remove it, lower gt_size or set pad_small'
    assert str(caught.value).endswith(expected)


@pytest.mark.parametrize('size', [44, 48, 60, 120])
def test_small_images_are_extended_by_reflection(sources, size):
    options = {'use_hflip': False, 'use_rot': False, 'pad_small': True}
    sample = training_set(sources[:1], gt_size=size, **options)[0, 0]
    whole = training_set(sources[:1], gt_size=None, **options)[0, 0]
    for key in ('lq', 'gt'):
        image = whole[key].permute(1, 2, 0).numpy()
        image = cv2.copyMakeBorder(image, 0, max(size - 48, 0), 0, max(size - 40, 0), cv2.BORDER_REFLECT)
        crop = sample[key].permute(1, 2, 0).numpy()
        assert crop.shape == (size, size, 3)
        assert any(np.array_equal(image[top : top + size], crop) for top in range(len(image) - size + 1))


def test_whole_images(sources):
    dataset = training_set(sources[:1], gt_size=None)
    samples = [dataset[0, i] for i in range(20)]
    assert {tuple(sample['lq'].shape) for sample in samples} == {(3, 48, 40), (3, 40, 48)}  # some are turned
    batch = collate_whole(samples[:3])
    assert all(torch.equal(image, sample['lq']) for image, sample in zip(batch['lq'], samples))
    assert batch['degradation'] == [sample['degradation'] for sample in samples[:3]]


def test_an_error_in_a_worker_keeps_its_sentence(sources, tmp_path):
    dataset = training_set(sources[:1])
    for name in ('img1', 'img2', 'img10'):
        (tmp_path / 'gt' / f'{name}.png').write_bytes(b'')
    with pytest.raises(DataError) as caught:
        list(batches(dataset, (0,), num_workers=1))
    assert sentence(caught.value).startswith(f"image '{tmp_path}/gt/img")
    assert sentence(caught.value).endswith('is empty; copy it again or remove it')


SIDE = 'expected a whole number, at least 1 and at most 100,000'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'sources': []}, "data set 'x': sources: found [], expected a list of one or more, each a mapping"),
        ({'sources': None}, "data set 'x': sources: found null, expected a list of one or more, each a mapping"),
        ({'gt_size': -1}, f"data set 'x': gt_size: found -1, {SIDE}"),
        ({'gt_size': 0}, f"data set 'x': gt_size: found 0, {SIDE}"),
        ({'gt_size': '64'}, f"data set 'x': gt_size: found '64', {SIDE}"),
        ({'seed': -1}, "data set 'x': seed: found -1, expected a whole number, at least 0"),
        ({'gt_sise': 64}, "data set 'x': gt_sise: unknown key; did you mean 'gt_size'?"),
    ],
)
def test_wrong_options(sources, change, message):
    with pytest.raises(OptionsError) as caught:
        training_set(**{'sources': sources, **change})
    assert str(caught.value) == message


def test_wrong_lists_of_sources(sources):
    for wrong, message in (
        ([sources[0], dict(sources[0])], 'sources[1]: found the same as in sources[0], expected it once'),
        (
            [{**sources[0], 'weight': 2}, sources[1]],
            'sources[1].weight: missing, expected one for every source, or for none',
        ),
        ([sources[0], {**sources[1], 'wieght': 2}], "sources[1].wieght: unknown key; did you mean 'weight'?"),
    ):
        with pytest.raises(OptionsError) as caught:
            training_set(wrong)
        assert str(caught.value) == f"data set 'x': {message}"


def test_all_that_is_wrong_is_said_at_once(sources):
    with pytest.raises(OptionsError) as caught:
        training_set([{**sources[0], 'weight': -1}], gt_size=0.5, sede=3)
    places = [line.split(': ')[:2] for line in str(caught.value).splitlines()]
    assert places == [["data set 'x'", place] for place in ('gt_size', 'sources[0].weight', 'sede')]


def test_tuples_and_whole_floats_are_taken(sources):
    source = {**sources[2], 'degrade': {'type': 'noise', 'sigma': (25, 25)}}
    given = {'sources': (source,), 'gt_size': 16.0, 'seed': 5.0}
    assert equal(training_set(**given)[0, 1], training_set(sources[2:3])[0, 1])
    assert given == {'sources': (source,), 'gt_size': 16.0, 'seed': 5.0}  # and not changed
