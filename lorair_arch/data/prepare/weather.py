"""Benchmarks of snow, rain, raindrops and haze, and of their mixtures."""

from __future__ import annotations

from lorair_arch.data.prepare.benchmarks import Benchmark, Layout, by_name, pairs

_CDD11 = (
    *('low', 'haze', 'rain', 'snow', 'low_haze', 'low_rain', 'low_snow'),
    *('haze_rain', 'haze_snow', 'low_haze_rain', 'low_haze_snow'),
)


def _rain100(letter: str, word: str, train: int) -> tuple:
    """Describes Rain100L or Rain100H: the authors' archives, the older release, and two well-known copies."""
    trained, tested, short = f'rain_data_train_{word}', f'rain_data_test_{word}', f'Rain100{letter}'
    return (
        pairs(
            'train', 'rain', train,
            (f'{trained}/rain/norain-{{id}}x2', f'{trained}/norain/norain-{{id}}'),
            (f'RainTrain{letter}/rain-{{id}}', f'RainTrain{letter}/norain-{{id}}'),
            *([('Derain/rainy/rain-{id}', 'Derain/gt/norain-{id}')] if letter == 'L' else []),
        ),
        pairs(
            'test', 'rain', 100,
            (f'{tested}/rain/X2/norain-{{id}}x2', f'{tested}/norain/norain-{{id}}'),
            (f'{short}/**/rain-{{id}}', f'{short}/**/norain-{{id}}'),
            (f'{short}/input/{{name}}', f'{short}/target/{{name}}'),
        ),
    )  # fmt: skip


WEATHER = by_name([
    Benchmark(
        'snow100k', 'Snow100K', 'Liu et al., DesnowNet, TIP 2018',
        'https://sites.google.com/view/yunfuliu/desnownet',
        (
            pairs('train', 'snow', 50_000, ('all/synthetic/{name}', 'all/gt/{name}')),
            pairs('train_selection', 'snow', 9_001, Layout('all/gt/{name}', 'all/synthetic/{name}', 'allweather.txt')),
            pairs('s', 'snow', 16_611, ('Snow100K-S/synthetic/{name}', 'Snow100K-S/gt/{name}')),
            pairs('m', 'snow', 16_588, ('Snow100K-M/synthetic/{name}', 'Snow100K-M/gt/{name}')),
            pairs('l', 'snow', 16_801, ('Snow100K-L/synthetic/{name}', 'Snow100K-L/gt/{name}')),
        ),
        protocol='allweather',
        note="The selection is TransWeather's: put its list of training images, `allweather.txt`, beside `all`. Masks "
        'are left alone.',
    ),
    Benchmark(
        'outdoor_rain', 'Outdoor-Rain, Test1', 'Li et al., Heavy Rain Image Restoration, CVPR 2019',
        'https://github.com/liruoteng/HeavyRainRemoval',
        (
            pairs('train', 'rain', 9_000, ('train/{in|data}/im_{id}_s*_a*', 'train/gt/im_{id}'), size=(720, 480)),
            pairs(
                'test1', 'rain', 750, ('{Test1|test}/{in|data}/im_{id}_s*_a*', '{Test1|test}/gt/im_{id}'),
                size=(720, 480),
            ),
        ),
        protocol='allweather',
        note='Several degraded images may share a ground truth.',
    ),
    Benchmark(
        'raindrop', 'RainDrop (test A and B)', 'Qian et al., Attentive GAN for Raindrop Removal, CVPR 2018',
        'https://github.com/rui1996/DeRaindrop',
        (
            pairs('train', 'raindrop', 861, ('train/data/{id}_rain', 'train/gt/{id}_clean')),
            pairs('test_a', 'raindrop', 58, ('test_a/data/{id}_rain', 'test_a/gt/{id}_clean')),
            pairs('test_b', 'raindrop', 249, ('test_b/data/{id}_rain', 'test_b/gt/{id}_clean')),
        ),
        protocol='allweather',
        note='Test A is a part of test B.',
    ),
    Benchmark(
        'allweather', 'All-weather training set', 'Valanarasu et al., TransWeather, CVPR 2022',
        'https://github.com/sunshangquan/Histoformer',
        (
            # The first template that fits takes an image: what is neither rain nor raindrops is snow.
            pairs('rain', 'rain', 9_000, ('input/im_{id}_{rest}', 'gt/im_{id}_{rest}')),
            pairs('raindrop', 'raindrop', 1_069, ('input/{id}_rain', 'gt/{id}_rain')),
            pairs('snow', 'snow', 9_001, ('input/{name}', 'gt/{name}')),
        ),
        note='The counts are those of the paper; they add up to 19,070, where the page of TransWeather says 18,069. '
        'Images are told apart by their names.',
    ),
    Benchmark(
        'ots', 'RESIDE OTS', 'Li et al., Benchmarking Single-Image Dehazing and Beyond, TIP 2019',
        'https://sites.google.com/view/reside-dehaze-datasets',
        (
            pairs(
                'train', 'haze', 72_135, ('{haze|hazy|synthetic}/**/{id}_*_*', '{clear|original}/**/{id}'), gts=2_061
            ),
        ),
        note='35 degraded images of each ground truth.',
    ),
    Benchmark(
        'its', 'RESIDE ITS', 'Li et al., Benchmarking Single-Image Dehazing and Beyond, TIP 2019',
        'https://sites.google.com/view/reside-dehaze-datasets',
        (pairs('train', 'haze', 13_990, ('hazy/{id}_*_*', 'clear/{id}'), gts=1_399, crop_gt=True),),
        note='10 degraded images of each ground truth.',
    ),
    Benchmark(
        'sots', 'RESIDE SOTS (outdoor, indoor)', 'Li et al., Benchmarking Single-Image Dehazing and Beyond, TIP 2019',
        'https://sites.google.com/view/reside-dehaze-datasets',
        (
            pairs(
                'outdoor', 'haze', 500,
                ('outdoor/hazy/{id}_*_*', 'outdoor/gt/{id}'), ('dehaze/input/{id}_*_*', 'dehaze/target/{id}'),
                gts=492,
            ),
            pairs(
                'indoor', 'haze', 500,
                ('indoor/hazy/{id}_*', 'indoor/{gt|clear}/{id}'),
                ('nyuhaze500/hazy/{id}_*', 'nyuhaze500/{gt|clear}/{id}'),
                gts=50, crop_gt=True,
            ),
        ),
        protocol='airnet',
        note='Ground truths that are larger than their degraded images are cut around their centre, as FFA-Net does.',
    ),
    Benchmark(
        'rain100l', 'Rain100L', 'Yang et al., Deep Joint Rain Detection and Removal, CVPR 2017',
        'https://www.icst.pku.edu.cn/struct/Projects/joint_rain_removal.html',
        _rain100('L', 'Light', 200),
        protocol='airnet',
        note='The authors have replaced their archives once; 200 and 100 pairs are the ones that papers use.',
    ),
    Benchmark(
        'rain100h', 'Rain100H', 'Yang et al., Deep Joint Rain Detection and Removal, CVPR 2017',
        'https://www.icst.pku.edu.cn/struct/Projects/joint_rain_removal.html',
        _rain100('H', 'Heavy', 1_800),
        protocol='y',
    ),
    Benchmark(
        'rain13k', 'Rain13K and its test sets', 'Jiang et al., MSPFN, CVPR 2020; Zamir et al., MPRNet, CVPR 2021',
        'https://github.com/swz30/Restormer/tree/main/Deraining',
        (
            pairs('train', 'rain', 13_712, ('Rain13K/input/{name}', 'Rain13K/target/{name}')),
            *(
                pairs(name.lower(), 'rain', count, (f'{name}/input/{{name}}', f'{name}/target/{{name}}'))
                for name, count in {
                    'Test100': 98, 'Rain100H': 100, 'Rain100L': 100, 'Test2800': 2_800, 'Test1200': 1_200,
                }.items()
            ),
        ),
        protocol='y',
    ),
    Benchmark(
        'cdd11', 'CDD-11', 'Guo et al., OneRestore, ECCV 2024', 'https://github.com/gy65896/OneRestore',
        tuple(
            pairs(
                f'{split}_{name}', name, count,
                (f'{{CDD-11_{split}|{split}}}/{name}/{{name}}', f'{{CDD-11_{split}|{split}}}/clear/{{name}}'),
                shared_gt=f'{split}_clear',
            )
            for split, count in (('train', 1_183), ('test', 200))
            for name in _CDD11
        ),
        protocol='onerestore',
        note='Four degradations alone and in seven mixtures; all share the ground truths in `clear`.',
    ),
    Benchmark(
        'realsnow', 'RealSnow', 'Zhu et al., WGWS-Net, CVPR 2023', 'https://github.com/zhuyr97/WGWS-Net',
        tuple(
            pairs(name[:-3], 'snow', None, (f'{name}/input/{{name}}', f'{name}/gt/{{name}}'))
            for name in ('training', 'testing')
        ),
        protocol='rgb',
        note='Pairs cut from videos of scenes at rest.',
    ),
])  # fmt: skip
