"""Benchmarks in miniature, as their authors distribute them: written by hand, not made of the table they test.

For each NAME: {part: [(degraded image or None, ground truth), ...]}, paths without suffix unless they have one.
"""

from __future__ import annotations

from pathlib import Path

import cv2

from tests.photos import photo

MIXTURES = (
    *('low', 'haze', 'rain', 'snow', 'low_haze', 'low_rain', 'low_snow', 'haze_rain', 'haze_snow'),
    *('low_haze_rain', 'low_haze_snow'),
)
TASKS = {
    'motion-blurry': 'blur', 'hazy': 'haze', 'jpeg-compressed': 'jpeg', 'low-light': 'lowlight', 'noisy': 'noise',
    'raindrop': 'raindrop', 'rainy': 'rain', 'shadowed': 'shadow', 'snowy': 'snow', 'uncompleted': 'inpainting',
}  # fmt: skip
JDWAY = 'media/jdway/GameSSD/overlapping/test'
REALBLUR_J = 'RealBlur-J_ECC_IMCORR_centroid_itensity_ref'
REALBLUR_R = 'RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref'


def rain100(letter: str, word: str) -> dict:
    train, test = f'rain_data_train_{word}', f'rain_data_test_{word}'
    return {
        'train': [(f'{train}/rain/norain-{i}x2', f'{train}/norain/norain-{i}') for i in (1, 2, 10)],
        'test': [(f'{test}/rain/X2/norain-00{i}x2', f'{test}/norain/norain-00{i}') for i in (1, 2)],
    }


RELEASES: dict[str, dict[str, list[tuple[str | None, str]]]] = {
    'snow100k': {
        'train': [(f'all/synthetic/{name}', f'all/gt/{name}') for name in ('beautiful_smile_00003', 'city_1', 'x_2')],
        'train_selection': [('all/synthetic/city_1', 'all/gt/city_1')],
        **{
            part.lower(): [
                (f'{JDWAY}/Snow100K-{part}/synthetic/{name}.jpg', f'{JDWAY}/Snow100K-{part}/gt/{name}.jpg')
                for name in ('city_read_00012', 'winter_7')
            ]
            for part in 'SML'
        },
    },
    'outdoor_rain': {
        'train': [
            ('train/in/im_0003_s85_a04', 'train/gt/im_0003'),
            ('train/in/im_0003_s90_a06', 'train/gt/im_0003'),
            ('train/in/im_0011_s80_a05', 'train/gt/im_0011'),
        ],
        'test1': [(f'Test1/in/im_000{i}_s80_a04', f'Test1/gt/im_000{i}') for i in (1, 2)],
    },
    'raindrop': {
        part: [(f'{part}/data/{i}_rain', f'{part}/gt/{i}_clean') for i in (0, 1, 10)]
        for part in ('train', 'test_a', 'test_b')
    },
    'allweather': {
        'rain': [tuple(f'allweather/{side}/im_0001_s{s}_a04' for side in ('input', 'gt')) for s in (80, 85)],
        'raindrop': [tuple(f'allweather/{side}/{i}_rain' for side in ('input', 'gt')) for i in (0, 12)],
        'snow': [
            tuple(f'allweather/{side}/{name}.jpg' for side in ('input', 'gt')) for name in ('city_1', 'winter_00003')
        ],
    },
    'ots': {
        'train': [
            (f'OTS_BETA/haze/part1/000{i}_{a}_{b}.jpg', f'OTS_BETA/clear/000{i}.jpg')
            for i in (1, 2)
            for a, b in ((0.8, 0.04), (0.8, 0.2), (1, 0.16))
        ]
    },
    'its': {
        'train': [
            (f'ITS_v2/hazy/{i}_{j}_{t}', f'ITS_v2/clear/{i}')
            for i in (1, 1399)
            for j, t in ((1, 0.90179), (10, 0.97842))
        ]
    },
    'sots': {
        'outdoor': [(f'SOTS/outdoor/hazy/000{i}_0.8_0.2.jpg', f'SOTS/outdoor/gt/000{i}') for i in (1, 2)],
        'indoor': [
            (f'SOTS/indoor/nyuhaze500/hazy/{i}_{j}', f'SOTS/indoor/nyuhaze500/gt/{i}')
            for i in (1400, 1401)
            for j in (1, 10)
        ],
    },
    'rain100l': rain100('L', 'Light'),
    'rain100h': rain100('H', 'Heavy'),
    'rain13k': {
        'train': [('train/Rain13K/input/1.jpg', 'train/Rain13K/target/1.jpg')],
        **{
            name.lower(): [(f'test/{name}/input/{i}', f'test/{name}/target/{i}') for i in (1, 2, 10)]
            for name in ('Test100', 'Rain100H', 'Rain100L', 'Test2800', 'Test1200')
        },
    },
    'cdd11': {
        f'{split}_{name}': [(f'CDD-11_{split}/{name}/0000{i}', f'CDD-11_{split}/clear/0000{i}') for i in (1, 2)]
        for split in ('train', 'test')
        for name in MIXTURES
    },
    'realsnow': {
        part[:-3]: [(f'RealSnow/{part}/input/snow_{i}', f'RealSnow/{part}/gt/snow_{i}') for i in (1, 2)]
        for part in ('training', 'testing')
    },
    'bsd400': {
        'train': [
            (None, f'BSDS500/data/images/{name}.jpg') for name in ('train/100075', 'train/2092', 'test/2018')
        ]
    },
    'wed': {'train': [(None, f'exploration_database_and_code/pristine_images/0000{i}.bmp') for i in (1, 2)]},
    'cbsd68': {'test': [(None, f'CBSD68/{i}') for i in (101085, 3096)]},
    'bsd68': {'test': [(None, f'BSD68/test00{i}') for i in (1, 2)]},
    'urban100': {'test': [(None, f'Urban100/image_SRF_4/img_00{i}_SRF_4_HR') for i in (1, 2)]},
    'kodak24': {'test': [(None, f'kodak/kodim0{i}') for i in (1, 2)]},
    'mcmaster': {'test': [(None, f'McM/{i}.tif') for i in (1, 18)]},
    'sidd': {
        'train': [
            tuple(f'SIDD_Medium_Srgb/Data/{scene}/0001_{side}_SRGB_{n}.PNG' for side in ('NOISY', 'GT'))
            for scene in ('0001_001_S6_00100_00060_3200_L', '0002_001_S6_00100_00020_3200_N')
            for n in ('010', '011')
        ]
    },
    'polyu': {
        'test': [
            (f'CroppedImages/{name}_real.JPG', f'CroppedImages/{name}_mean.JPG')
            for name in ('Canon5D2_5_160_3200_chair_11', 'Sony_4-5_125_3200_plant_2')
        ]
    },
    'live1': {'test': [(None, f'refimgs/{name}.bmp') for name in ('bikes', 'sailing2', 'womanhat')]},
    'classic5': {'test': [(None, f'classic5/{name}.bmp') for name in ('baboon', 'peppers')]},
    'gopro': {
        split: [
            (f'GOPRO_Large/{split}/{scene}/blur/{i}', f'GOPRO_Large/{split}/{scene}/sharp/{i}')
            for scene in ('GOPR0372_07_00', 'GOPR0372_07_01')
            for i in ('000047', '000048')
        ]
        for split in ('train', 'test')
    },
    'hide': {
        'train': [
            (f'HIDE_dataset/train/{name}', f'HIDE_dataset/GT/{name}') for name in ('1fromGOPR0950', '2fromGOPR0977')
        ],
        'test': [
            ('HIDE_dataset/test/test-close-ups/10fromGOPR1089', 'HIDE_dataset/GT/10fromGOPR1089'),
            ('HIDE_dataset/test/test-long-shot/11fromGOPR1089', 'HIDE_dataset/GT/11fromGOPR1089'),
        ],
    },
    'realblur': {
        f'{letter}_{split}': [(f'{folder}/{scene}/blur/blur_{i}', f'{folder}/{scene}/gt/gt_{i}') for i in (1, 2)]
        for letter, folder in (('j', REALBLUR_J), ('r', REALBLUR_R))
        for split, scene in (('train', 'scene002'), ('test', 'scene001'))
    },
    'lol_v1': {
        'train': [(f'LOLdataset/our485/low/{i}', f'LOLdataset/our485/high/{i}') for i in (2, 5, 10)],
        'test': [(f'LOLdataset/eval15/low/{i}', f'LOLdataset/eval15/high/{i}') for i in (1, 22)],
    },
    'lol_v2': {
        **{
            f'real_{s.lower()}': [
                (f'LOL-v2/Real_captured/{s}/Low/low0000{i}', f'LOL-v2/Real_captured/{s}/Normal/normal0000{i}')
                for i in (1, 2)
            ]
            for s in ('Train', 'Test')
        },
        **{
            f'synthetic_{s.lower()}': [
                (f'LOL-v2/Synthetic/{s}/Low/{name}', f'LOL-v2/Synthetic/{s}/Normal/{name}')
                for name in ('r000da54ft', 'r01a9b2ct')
            ]
            for s in ('Train', 'Test')
        },
    },
    'daclip': {
        f'{split}_{task}': [tuple(f'universal/{split}/{folder}/{side}/{i}' for side in ('LQ', 'GT')) for i in (1, 2)]
        for split in ('train', 'val')
        for folder, task in TASKS.items()
    },
    'foundir': {'test': [(f'TestSet/LQ/000{i}', f'TestSet/GT/000{i}') for i in (1, 2)]},
    'folder': {'images': [('lq/a/1', 'gt/a/1'), ('lq/a.b', 'gt/a.b'), ('lq/é (2)', 'gt/é (2)')]},
}  # fmt: skip
# Texts that come along.
TEXTS = {
    'snow100k': {'allweather.txt': './allweather/input/city_1.jpg\n./allweather/input/im_0001_s80_a04.png\n'},
    'realblur': {
        f'RealBlur_{letter}_{split}_list.txt': ''.join(
            f'{folder}/{scene}/gt/gt_{i}.png {folder}/{scene}/blur/blur_{i}.png {folder}/{scene}/avg/avg_{i}.png\n'
            for i in (1, 2)
        )
        for letter, folder in (('J', REALBLUR_J), ('R', REALBLUR_R))
        for split, scene in (('train', 'scene002'), ('test', 'scene001'))
    },
}
# What lies beside, and is none of the benchmark's images.
BESIDE = {
    'snow100k': ['all/mask/city_1'],
    'gopro': ['GOPRO_Large/train/GOPR0372_07_00/blur_gamma/000047'],
    'its': ['ITS_v2/trans/1_1'],
    'polyu': ['OriginalImages/Canon5D2_chair/0001.JPG'],
    'cbsd68': ['CBSD68/noisy25/101085_x'],
}


def put(path: Path, size: tuple[int, int] = (48, 40)) -> Path:
    """Writes an image that its path tells from all others."""
    path = path if path.suffix.lower() in ('.png', '.jpg', '.bmp', '.tif') else path.with_name(f'{path.name}.png')
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = int.from_bytes(str(path.name + path.parent.name).encode(), 'little') % 2**32
    path.write_bytes(cv2.imencode(path.suffix.lower(), photo(seed, *size))[1].tobytes())
    return path


def release(root: Path, name: str) -> dict[str, list[tuple[Path | None, Path]]]:
    """Writes a release; gives the files of the pairs of each part."""
    files = {
        part: [(lq and put(root / lq), put(root / gt)) for lq, gt in pairs] for part, pairs in RELEASES[name].items()
    }
    for path in BESIDE.get(name, []):
        put(root / path)
    for path, text in TEXTS.get(name, {}).items():
        (root / path).write_text(text)
    return files
