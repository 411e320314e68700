"""Setting I of the official release: its options files test and train official files, on what is prepared."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.utils import tensor2img

from lorair_arch import cli
from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.data.prepare.prepare import prepare
from lorair_arch.metrics.allweather_metric import calculate_psnr_allweather, calculate_ssim_allweather
from lorair_arch.options.yaml_file import read_yaml
from lorair_arch.training import train as training
from lorair_arch.weights.loading import load_into
from lorair_arch.weights.official import convert_official
from tests.golden import Golden
from tests.miniature import REPO, run
from tests.photos import photo, write

OPTIONS = REPO / 'options'
MODELS = 'experiments/pretrained_models'
OFFLINE = {'HF_HUB_OFFLINE': '1', 'https_proxy': 'http://127.0.0.1:9', 'http_proxy': 'http://127.0.0.1:9'}
# what makes the networks of an options file those of the golden files
TINY = [
    f'network_router:clip_model={json.dumps(Golden("router").network_router()["clip_model"])}',
    'network_g:width=16',
    'network_g:enc_blk_nums=[1, 1]',
    'network_g:dec_blk_nums=[1, 1]',
]
TINY_EXPERTS = [*TINY, 'network_g:lora={rank: 4, num_experts: 3, top_k: 1}']
# Of each test set an image, as the authors name it: degraded, and clean.
SETS = {
    'snow100k_s': [f'snow100k/Snow100K-S/{side}/beautiful_smile_1' for side in ('synthetic', 'gt')],
    'snow100k_l': [f'snow100k/Snow100K-L/{side}/beautiful_smile_2' for side in ('synthetic', 'gt')],
    'outdoor_rain': ['outdoor_rain/Test1/in/im_0001_s80_a04', 'outdoor_rain/Test1/gt/im_0001'],
    'raindrop_a': ['raindrop/test_a/data/0_rain', 'raindrop/test_a/gt/0_clean'],
}
TRAINING = ['city_1', 'city_2', 'im_0001_s80_a04', 'im_0001_s85_a04', '0_rain', '1_rain']


@pytest.fixture(scope='module')
def here(tmp_path_factory):
    """A folder with official files, and with data where datasets/README.md puts them."""
    folder = tmp_path_factory.mktemp('setting1')
    models = folder / MODELS
    models.mkdir(parents=True)
    router = {key: value.bfloat16() for key, value in Golden('router').official().items()}
    for name, weights in (
        ('setting1_router', router),
        ('setting1_ir', Golden('ir_finetune_top1').official()),
        ('pretrained', Golden('ir_pretrain').official()),
    ):
        torch.save({'params': weights}, models / f'{name}.pth')
    for seed, (lq, gt) in enumerate(SETS.values()):
        image = photo(seed, 50, 62)
        write(folder / f'{gt}.png', image)
        write(folder / f'{lq}.png', np.maximum(image, 60) - 40)
    for seed, name in enumerate(TRAINING):  # the archive gives both images of a pair the same name
        image = photo(seed, 40 + 12 * (seed % 2), 44)
        write(folder / f'allweather/gt/{name}.png', image)
        write(folder / f'allweather/input/{name}.png', image // 2)
    for name in ('snow100k', 'outdoor_rain', 'raindrop', 'allweather'):
        assert prepare(name, str(folder / name), str(folder / 'datasets' / name)).mistakes == []
    return folder


def restored_directly(lq):
    """Restores an image with the official weights and nothing of the pipeline."""
    router = DegradationRouter(**Golden('router').network_router(), views='pillow').eval()
    load_into(router, {k: v.bfloat16() for k, v in convert_official(Golden('router').official()).items()})
    golden = Golden('ir_finetune_top1')
    net = LoRAIR(**golden.network_g()).eval()
    load_into(net, convert_official(golden.official()))
    image = torch.from_numpy(lq[..., ::-1].copy()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        logits, prior = router(image)
        return tensor2img(net(image, prior, logits))


def test_official_files_are_tested_on_lmdbs_and_folders(here):
    roots = {f'dataroot_{side}': f'raindrop/test_a/{folder}' for side, folder in (('lq', 'data'), ('gt', 'gt'))}
    source = json.dumps({'degradation': 'raindrop', 'match': r'^(\d+)', **roots})
    sets = f'datasets:test_4={{name: folder, type: AllInOneDataset, sources: [{source}]}}'
    command = ['test', '-opt', str(OPTIONS / 'test/setting1.yml'), '--force_yml', 'num_gpu=0', 'val:save_img=true']
    done = run(here, *command, sets, *TINY_EXPERTS, **OFFLINE)
    assert done.returncode == 0, done.stderr
    results = here / 'results/setting1'
    for name, (lq, gt) in SETS.items():
        expected = restored_directly(cv2.imread(str(here / f'{lq}.png')))
        (file,) = (results / 'visualization' / name).rglob('*.png')
        saved = cv2.imread(str(file))
        assert np.abs(saved.astype(int) - expected).max() <= 1  # one grey level, where float32 meets a half
        # the metrics are those of the saved file, as the official script measures it
        (image,) = json.loads((results / f'metrics_{name}.json').read_text())['images']
        truth = cv2.imread(str(here / f'{gt}.png'))
        assert image['psnr'] == calculate_psnr_allweather(saved, truth)
        assert image['ssim'] == calculate_ssim_allweather(saved, truth)
    lmdb, folder = (json.loads((results / f'metrics_{name}.json').read_text()) for name in ('raindrop_a', 'folder'))
    assert lmdb['mean'] == folder['mean']


@pytest.mark.parametrize(
    ('stage', 'start', 'in_process'),
    [
        ('router', 'setting1_router', True),
        ('pretrain', 'pretrained', True),
        ('finetune', 'pretrained', False),
        ('finetune', 'setting1_ir', True),
    ],
)
def test_official_files_are_trained_further(here, monkeypatch, stage, start, in_process):
    label = 'router' if stage == 'router' else 'g'
    changes = [
        *('num_gpu=0', f'name={stage}', 'train:total_iter=1', 'val:val_freq=1', 'logger:print_freq=1'),
        *('datasets:train:batch_size_per_gpu=2', 'datasets:train:persistent_workers=false'),
        *('datasets:train:pin_memory=false', 'datasets:train:num_worker_per_gpu=0'),
        f'path:pretrain_network_{label}={MODELS}/{start}.pth',
    ]
    if stage == 'router':
        changes += [TINY[0], 'network_router:pretrained=~']
    else:
        changes += TINY_EXPERTS if stage == 'finetune' else TINY
        changes += [f'path:pretrain_network_router={MODELS}/setting1_router.pth']
        changes += ['datasets:train:gt_size=48', 'network_g:local_pool_size=[48, 48]']  # some images are smaller
    file = str(OPTIONS / f'train/setting1/{stage}.yml')
    if in_process:
        monkeypatch.chdir(here)
        training.run(file, force_yml=changes)
    else:
        done = run(here, 'train', '-opt', file, '--force_yml', *changes, **OFFLINE)
        assert done.returncode == 0, done.stderr
    before = convert_official(torch.load(here / MODELS / f'{start}.pth')['params'])
    after = torch.load(here / f'experiments/{stage}/models/net_{label}_latest.pth')['params']
    changed = {key for key, value in before.items() if not torch.equal(after[key], value.float())}
    if stage == 'router':
        assert changed == {key for key in before if not key.startswith('clip.')}
    else:  # experts that no image of the batch used may be as they were
        assert changed >= {key for key in before if 'lora' not in key}


@pytest.mark.parametrize(
    ('label', 'file', 'message'),
    [
        (
            'g',
            'setting1_router',
            'does not fit LoRAIR: it seems to hold a degradation router for 3 degradations; missing',
        ),
        (
            'router',
            'setting1_ir',
            'does not fit DegradationRouter: it seems to hold a LoRA-IR restorer with 3 experts;',
        ),
        ('g', 'pretrained', 'it seems to hold a LoRA-IR restorer without experts; missing are 100 of the network'),
        ('g', 'truncated', 'seems to be a truncated or damaged PyTorch file (3000 bytes): copy or download it again'),
    ],
)
def test_a_wrong_file_gives_one_clear_error(here, monkeypatch, capsys, label, file, message):
    monkeypatch.chdir(here)
    Path(MODELS, 'truncated.pth').write_bytes(Path(MODELS, 'setting1_ir.pth').read_bytes()[:3000])
    command = ['test', '-opt', str(OPTIONS / 'test/setting1.yml'), '--force_yml', 'num_gpu=0', *TINY_EXPERTS]
    assert cli.basicsr([*command, 'name=wrong', f'path:pretrain_network_{label}={MODELS}/{file}.pth']) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert line.startswith(f'error: {MODELS}/{file}.pth ')
    assert message in line


def test_the_networks_have_the_published_size():
    files = ('train/setting1/pretrain', 'train/setting1/finetune', 'test/setting1')
    networks = [read_yaml(OPTIONS / f'{name}.yml')['network_g'] for name in files]
    counts = []
    for network in networks:
        assert network.pop('type') == 'LoRAIR'
        with torch.device('meta'):
            counts.append(sum(parameter.numel() for parameter in LoRAIR(**network).parameters()) / 1e6)
    assert counts == pytest.approx([68.9, 81.7, 81.7], abs=0.05)


def test_the_stages_agree_with_each_other():
    files = [*(OPTIONS / 'train/setting1').glob('*.yml'), OPTIONS / 'test/setting1.yml']
    stages = [read_yaml(file) for file in files]
    for stage in stages:
        stage['network_router'].pop('pretrained')
        stage.get('network_g', {}).pop('local_pool_size', None)
    assert len({json.dumps([stage['degradations'], stage['network_router']]) for stage in stages}) == 1
    networks = {stage['name']: stage['network_g'] for stage in stages if 'network_g' in stage}
    assert networks['setting1'] == networks['setting1_finetune']
    assert {**networks['setting1_pretrain'], 'lora': networks['setting1']['lora']} == networks['setting1']
