"""Twelve steps of the official training, repeated by the model classes: optimiser, clipping, schedule, PSNR loss."""

import pytest
import torch
import torch.nn.functional as F
from basicsr.models import build_model

from tests.golden import Golden

MODELS = {'train_pretrain': 'LoRAIRPretrainModel', 'train_finetune': 'LoRAIRFinetuneModel'}


def options(golden, name, folder):
    """The options of a training that starts from an official file."""
    weights = folder / 'official.pth'
    torch.save({'params': golden.official()}, weights)
    schedule = golden.spec['scheduler']
    return {
        'name': name,
        'model_type': MODELS[name],
        'is_train': True,
        'num_gpu': 0,
        'dist': False,
        'rank': 0,
        'world_size': 1,
        'network_g': {'type': 'LoRAIR', **golden.network_g()},
        'path': {'pretrain_network_g': str(weights), 'models': str(folder), 'training_states': str(folder)},
        'train': {
            'total_iter': golden.spec['iters'],
            'warmup_iter': -1,
            'trainable': 'all',
            'optim_g': dict(golden.spec['optim']),
            'scheduler': {
                'type': 'CosineAnnealingRestartLR',
                'periods': [schedule['T_max']],
                'restart_weights': [1],
                'eta_min': schedule['eta_min'],
            },
            'pixel_opt': {'type': 'PSNRLoss'},
            'grad_clip_norm': golden.spec['grad_clip_norm'],
        },
    }


def batch(golden, step, memory_format):
    gt = F.avg_pool2d(golden.uniform(f'{step}.gt', [2, 3, 24, 24]), 5, stride=1, padding=2)
    lq = (gt + 0.1 * golden.normal(f'{step}.noise', [2, 3, 24, 24])).clamp(0, 1)
    data = {
        'lq': lq.contiguous(memory_format=memory_format),
        'gt': gt,
        'prior': golden.normal(f'{step}.prior', [2, 384]),
    }
    if golden.spec['lora']:
        data['logits'] = golden.normal(f'{step}.logits', [2, golden.spec['lora']['num_experts']])
    return data


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize('name', MODELS)
def test_follows_the_official_training_step_by_step(tmp_path, name, memory_format):
    golden = Golden(name)
    model = build_model(options(golden, name, tmp_path))
    model.net.to(memory_format=memory_format)
    losses, rates = [], []
    for step in range(golden.spec['iters']):
        model.update_learning_rate(step + 1, warmup_iter=-1)
        model.feed_data(batch(golden, step, memory_format))
        model.optimize_parameters(step + 1)
        losses.append(model.get_current_log()['l_pix'])
        rates += model.get_current_learning_rate()
    assert rates == pytest.approx(golden['lr'].tolist(), rel=1e-9)
    assert losses == pytest.approx(golden['loss'].tolist(), abs=1e-4)
    model.test()
    expected = golden['final_out']
    assert (model.output - expected).abs().max() <= 2e-5 * expected.abs().max()
