"""What a training leaves behind, to be compared to the last bit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch


def outcome(name: str, iteration: int = 8) -> dict[str, Any]:
    """Gives the checkpoint of an iteration, but for the options, and of every logged step the rate and the losses."""
    folder = Path('experiments', name)
    files = [folder / f'training_states/{iteration}.state', *sorted((folder / 'models').glob(f'net_*_{iteration}.pth'))]
    text = ''.join(log.read_text() for log in sorted(folder.glob('train_*.log')))
    logged = re.findall(r'iter: +([\d,]+), lr:\((\S+),\)\] .*\)\] (.*)', text)
    contents = {file.name: torch.load(file, weights_only=True) for file in files}
    contents[files[0].name].pop('options', None)  # such as the number of workers, which is to make no difference
    for content in contents.values():
        content.get('lorair', {}).pop('training', None)  # the name of the training
    return {'logged': sorted(set(logged)), **contents}


def same(a: Any, b: Any) -> bool:
    """Tells whether two nests of dicts, lists and tensors are equal to the last bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b
