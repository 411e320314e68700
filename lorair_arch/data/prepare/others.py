"""Benchmarks of noise, JPEG, blur and low light, mixed sets of several tasks, and anybody's own."""

from __future__ import annotations

from lorair_arch.data.prepare.benchmarks import Benchmark, Layout, by_name, clean, pairs


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# 68 of the 100 validation images of BSDS500, after Roth and Black (CVPR 2005).
_CBSD68 = _names(
    '101085 101087 102061 103070 105025 106024 108005 108070 108082 109053 119082 12084 123074 126007 130026 134035 '
    '14037 143090 145086 147091 148026 148089 157055 159008 160068 16077 163085 167062 167083 170057 175032 175043 '
    '182053 189080 19021 196073 197017 208001 210088 21077 216081 219090 220075 223061 227092 229036 236037 24077 '
    '241004 241048 253027 253055 260058 271035 285079 291000 295087 296007 296059 299086 300091 302008 304034 304074 '
    '306005 3096 33039 351093'
)
_LIVE1 = _names(
    'bikes building2 buildings caps carnivaldolls cemetry churchandcapitol coinsinfountain dancers flowersonih35 house '
    'lighthouse lighthouse2 manfishing monarch ocean paintedhouse parrots plane rapids sailing1 sailing2 sailing3 '
    'sailing4 statue stream studentsculpture woman womanhat'
)
_CLASSIC5 = _names('baboon barbara boats lena peppers')
_BSDS = 'non-commercial research and education'
# Name of the folder, name of the class, pairs for training and for validation.
_DACLIP = (
    ('motion-blurry', 'blur', 2_103, 1_111), ('hazy', 'haze', 6_000, 1_000), ('jpeg-compressed', 'jpeg', 3_550, 29),
    ('low-light', 'lowlight', 485, 15), ('noisy', 'noise', 3_550, 68), ('raindrop', 'raindrop', 861, 58),
    ('rainy', 'rain', 1_800, 100), ('shadowed', 'shadow', 2_680, 408), ('snowy', 'snow', 1_872, 601),
    ('uncompleted', 'inpainting', 29_900, 100),
)  # fmt: skip


def _realblur(letter: str, folder: str) -> tuple:
    templates = f'{folder}/{{scene}}/gt/gt_{{id}}', f'{folder}/{{scene}}/blur/blur_{{id}}'
    copied = f'RealBlur_{letter}/**/input/{{name}}', f'RealBlur_{letter}/**/target/{{name}}'
    return tuple(
        pairs(
            f'{letter.lower()}_{split}', 'blur', count,
            Layout(*templates, listed=f'RealBlur_{letter}_{split}_list.txt'), *([copied] if split == 'test' else []),
        )
        for split, count in (('train', 3_758), ('test', 980))
    )  # fmt: skip


OTHERS = by_name([
    Benchmark(
        'bsd400', 'BSD400', 'Martin et al., ICCV 2001; Arbelaez et al., TPAMI 2011',
        'https://github.com/BIDS/BSDS500',
        (clean('train', 'noise, sigma: [15, 50]', 400, 'images/{train|test}/{id}', 'BSD400/{id}', size=(481, 321)),),
        licence=_BSDS,
        note='The training and test images of BSDS500; CBSD68 is a part of its validation images.',
    ),
    Benchmark(
        'wed', 'Waterloo Exploration Database', 'Ma et al., TIP 2017',
        'https://ece.uwaterloo.ca/~k29ma/exploration/',
        (clean('train', 'noise, sigma: [15, 50]', 4_744, '{pristine_images|WaterlooED|WED}/{id}'),),
    ),
    Benchmark(
        'cbsd68', 'CBSD68', 'Martin et al., ICCV 2001; Roth and Black, CVPR 2005', 'https://github.com/BIDS/BSDS500',
        (
            clean(
                'test', 'noise, sigma: 25', 68,
                Layout('{id}', only=_CBSD68), 'original_png/{id}',
                size=(481, 321),
            ),
        ),
        licence=_BSDS, protocol='airnet',
        note='Found among the validation images of BSDS500 too. Noise of sigma 15, 25 and 50.',
    ),
    Benchmark(
        'bsd68', 'BSD68 (grey)', 'Martin et al., ICCV 2001; Roth and Black, CVPR 2005',
        'https://github.com/cszn/DnCNN',
        (clean('test', 'noise, sigma: 25', 68, '{BSD68|Set68}/test{id}', size=(481, 321)),),
        licence=_BSDS, protocol='rgb',
        note='Grey images are read with three equal channels, so that `rgb` measures one; noise made on the fly '
        'differs between them.',
    ),
    Benchmark(
        'urban100', 'Urban100', 'Huang et al., CVPR 2015', 'https://github.com/jbhuang0604/SelfExSR',
        (clean('test', 'noise, sigma: 25', 100, 'img_{id}', 'image_SRF_4/img_{id}_SRF_4_HR'),),
        protocol='airnet',
    ),
    Benchmark(
        'kodak24', 'Kodak24', 'Franzen, Kodak Lossless True Color Image Suite, 1999', 'https://r0k.us/graphics/kodak/',
        (clean('test', 'noise, sigma: 25', 24, 'kodim{id}'),),
        protocol='airnet',
    ),
    Benchmark(
        'mcmaster', 'McMaster', 'Zhang et al., JEI 2011', 'https://www4.comp.polyu.edu.hk/~cslzhang/CDM_Dataset.htm',
        (clean('test', 'noise, sigma: 25', 18, '{McM|McMaster}/{id}', '{McM|McMaster}/mcm_{id}', size=(500, 500)),),
        protocol='rgb',
    ),
    Benchmark(
        'sidd', 'SIDD-Medium', 'Abdelhamed et al., CVPR 2018', 'https://abdokamel.github.io/sidd/',
        (pairs('train', 'noise', 320, ('Data/{scene}/{id}_NOISY_SRGB_{n}', 'Data/{scene}/{id}_GT_SRGB_{n}')),),
        note='The validation blocks, a file of MATLAB, are not read.',
    ),
    Benchmark(
        'polyu', 'PolyU', 'Xu et al., arXiv 1804.02603',
        'https://github.com/csjunxu/PolyU-Real-World-Noisy-Images-Dataset',
        (pairs('test', 'noise', 100, ('CroppedImages/{name}_real', 'CroppedImages/{name}_mean'), size=(512, 512)),),
        licence='non-commercial (License.txt)', protocol='rgb',
        note='Crops of 512 x 512 pixels; of the whole photographs nothing is taken.',
    ),
    Benchmark(
        'live1', 'LIVE1', 'Sheikh et al., LIVE Image Quality Assessment Database, 2005',
        'https://live.ece.utexas.edu/research/quality/',
        (clean('test', 'jpeg, quality: 10', 29, Layout('{name}', only=_LIVE1)),),
        protocol='y',
    ),
    Benchmark(
        'classic5', 'classic5 (grey)', 'Foi et al., TIP 2007', 'https://github.com/cszn/DnCNN',
        (clean('test', 'jpeg, quality: 10', 5, Layout('{name}', only=_CLASSIC5), size=(512, 512)),),
        protocol='rgb',
        note='Grey images are read with three equal channels, so that `rgb` measures one.',
    ),
    Benchmark(
        'gopro', 'GoPro', 'Nah et al., CVPR 2017', 'https://seungjunnah.github.io/Datasets/gopro',
        tuple(
            pairs(
                split, 'blur', count,
                (f'{split}/{{sequence}}/blur/{{id}}', f'{split}/{{sequence}}/sharp/{{id}}'),
                (f'{split}/GoPro/input/{{name}}', f'{split}/GoPro/target/{{name}}'),
                size=(1280, 720),
            )
            for split, count in (('train', 2_103), ('test', 1_111))
        ),
        protocol='rgb',
        note='Of GOPRO_Large the images in `blur`, not those in `blur_gamma`.',
    ),
    Benchmark(
        'hide', 'HIDE', 'Shen et al., Human-Aware Motion Deblurring, ICCV 2019',
        'https://github.com/joanshen0508/HA_deblur',
        (
            pairs('train', 'blur', 6_397, ('train/{name}', 'GT/{name}'), size=(1280, 720)),
            pairs(
                'test', 'blur', 2_025,
                ('test/{test-close-ups|test-long-shot}/{name}', 'GT/{name}'),
                ('HIDE/input/{name}', 'HIDE/target/{name}'),
                size=(1280, 720),
            ),
        ),
        protocol='rgb',
    ),
    Benchmark(
        'realblur', 'RealBlur-J and RealBlur-R', 'Rim et al., ECCV 2020', 'https://github.com/rimchang/RealBlur',
        _realblur('J', 'RealBlur-J_ECC_IMCORR_centroid_itensity_ref')
        + _realblur('R', 'RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref'),
        protocol='rgb',
        note='Papers align results with the ground truths first, by evaluation_RealBlur_ecc.py of the authors. '
        'The lists beside the folders say which pairs are for training and which for testing.',
    ),
    Benchmark(
        'lol_v1', 'LOL v1', 'Wei et al., Deep Retinex Decomposition, BMVC 2018',
        'https://daooshee.github.io/BMVC2018website/',
        (
            pairs('train', 'lowlight', 485, ('our485/low/{id}', 'our485/high/{id}'), size=(600, 400)),
            pairs('test', 'lowlight', 15, ('eval15/low/{id}', 'eval15/high/{id}'), size=(600, 400)),
        ),
        protocol='rgb',
    ),
    Benchmark(
        'lol_v2', 'LOL v2 (real and synthetic)', 'Yang et al., Sparse Gradient Regularized Deep Retinex, TIP 2021',
        'https://github.com/flyywh/CVPR-2020-Semi-Low-Light',
        tuple(
            pairs(f'{kind}_{split.lower()}', 'lowlight', count, (low, normal))
            for kind, split, count, low, normal in (
                *(
                    ('real', s, n, f'Real_captured/{s}/Low/low{{id}}', f'Real_captured/{s}/Normal/normal{{id}}')
                    for s, n in (('Train', 689), ('Test', 100))
                ),
                *(
                    ('synthetic', s, n, f'Synthetic/{s}/Low/{{name}}', f'Synthetic/{s}/Normal/{{name}}')
                    for s, n in (('Train', 900), ('Test', 100))
                ),
            )
        ),
        protocol='rgb',
    ),
    Benchmark(
        'daclip', 'Ten degradations of DA-CLIP', 'Luo et al., arXiv 2310.01018', 'https://github.com/Algolzw/daclip-uir',
        tuple(
            pairs(f'{split}_{name}', name, count[i], (f'{split}/{folder}/LQ/{{name}}', f'{split}/{folder}/GT/{{name}}'))
            for i, split in enumerate(('train', 'val'))
            for folder, name, *count in _DACLIP
        ),
        protocol='rgb',
        note='Put together from other sets, as the page of DA-CLIP says; their terms hold.',
    ),
    Benchmark(
        'foundir', 'Test set of FoundIR', 'Li et al., arXiv 2412.01427', 'https://github.com/House-Leo/FoundIR',
        (pairs('test', 'mixed', None, ('**/LQ/{name}', '**/GT/{name}')),),
        protocol='not established',
        note='Its layout could not be established: folders `LQ` and `GT` with the same names are taken, one pair of '
        'folders at a time.',
    ),
    Benchmark(
        'folder', "Anybody's own", '-', '-',
        (
            pairs('images', 'own', None, ('{lq|input}/{path}', '{gt|target}/{path}'), Layout('{gt|target}/{path}')),
        ),
        licence='yours',
        note='Folders `lq` and `gt` with the same names and subfolders; `gt` alone: clean images. For other names: '
        '`scripts/data_preparation/make_lmdb.py`.',
    ),
])  # fmt: skip
