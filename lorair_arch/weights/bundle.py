"""One file for all that restores: router, restorer with experts, and how to build them; and its folder on a hub.

    router.*, restorer.*    the weights, by the names of the two networks
    config_json             uint8 [N], the bytes of a JSON: the degradations, options and trainings of both networks

The options are a tensor like the rest, as other programs that load or save the file keep nothing else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lorair_arch.errors import CheckpointError
from lorair_arch.files import check_output, write_file, write_json
from lorair_arch.weights.files import save_file
from lorair_arch.weights.hub import CONFIG as DESCRIPTION
from lorair_arch.weights.hub import SINGLE

CONFIG = 'config_json'
PARTS = ('router', 'restorer')


def is_bundle(state_dict: Mapping[str, Tensor]) -> bool:
    """Recognises the weights of both networks by their names."""
    return 'router.head.weight' in state_dict and 'restorer.intro.weight' in state_dict


def pack(
    networks: Mapping[str, tuple[dict[str, Tensor], dict]],
    degradations: list[str],
    training: Mapping[str, Sequence[dict]] | None = None,
) -> dict[str, Any]:
    """Makes one state dict of two.

    Args:
        networks: State dict and options of 'router' and 'restorer'.
        degradations: Their names, in the order of the classes.
        training: Of both, the trainings that made them.

    Returns:
        What `save_file` writes: the state dict, and the degradations once more, to be read without the weights.
    """
    config = {'degradations': degradations, **{part: networks[part][1] for part in PARTS}}
    if training:
        config['training'] = {part: list(training[part]) for part in PARTS}
    content = torch.frombuffer(bytearray(json.dumps(config).encode()), dtype=torch.uint8)
    weights = {f'{part}.{key}': value for part in PARTS for key, value in networks[part][0].items()}
    return {'params': {**weights, CONFIG: content}, 'lorair': {'degradations': degradations}}


def unpack(state_dict: Mapping[str, Tensor], path: str | os.PathLike) -> tuple[dict[str, dict[str, Tensor]], dict]:
    """Takes one apart.

    Args:
        state_dict: See `pack`.
        path: Where it comes from, for the message.

    Returns:
        The state dicts of 'router' and 'restorer', and what is known of them: their options and `degradations`, of a
        file without them nothing.

    Raises:
        CheckpointError: It holds something else as well, or its options cannot be read.
    """
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for key, value in state_dict.items():
        part, _, name = key.partition('.')
        if key != CONFIG and part not in parts:
            raise CheckpointError(f'{path} holds a router, a restorer and {key!r}, which is of neither: remove it')
        if key != CONFIG:
            parts[part][name] = value
    return parts, read_config(state_dict, path)


def read_config(state_dict: Mapping[str, Tensor], path: str | os.PathLike) -> dict[str, Any]:
    """Gives what a file says of itself, nothing if it is silent; raises a CheckpointError if it makes no sense."""
    if CONFIG not in state_dict:
        return {}
    try:
        config = json.loads(bytes(state_dict[CONFIG].to(torch.uint8).tolist()))
    except ValueError as error:
        raise CheckpointError(f'{path} is damaged: its {CONFIG} is no JSON; copy or download it again') from error
    if not isinstance(config, dict) or not all(isinstance(config.get(part, {}), dict) for part in (*PARTS, 'training')):
        raise CheckpointError(f'{path} is damaged: its {CONFIG} is no mapping; copy or download it again')
    return config


def options_of(net: nn.Module) -> dict[str, Any]:
    """Gives the options of a network as an options file would write them."""
    # weights that CLIP was once initialised with are in the state dict already
    settings = {key: value for key, value in net.settings.items() if key != 'pretrained' and value is not None}
    return {'type': type(net).__name__, **settings}


def save_folder(
    folder: str | os.PathLike, router: nn.Module, net: nn.Module, names: list[str], overwrite: bool = False
) -> None:
    """Writes a folder as hubs have them: the weights, their options as config.json, and a model card, README.md.

    Args:
        folder: Where to; made if missing.
        router, net: A `DegradationRouter` and a `LoRAIR`.
        names: The degradations.
        overwrite: Whether files in it may be replaced.

    Raises:
        OutputError: A file exists, or cannot be written.
    """
    folder = Path(os.path.expanduser(folder))
    for name in (SINGLE, DESCRIPTION, 'README.md'):
        check_output(folder / name, overwrite)
    networks = {part: (module.state_dict(), options_of(module)) for part, module in zip(PARTS, (router, net))}
    content = pack(networks, names)
    weights = content['params']
    save_file(content, folder / SINGLE)
    write_json(folder / DESCRIPTION, read_config(weights, SINGLE))
    count = sum(value.numel() for key, value in weights.items() if key != CONFIG)
    write_file(folder / 'README.md', model_card(folder.resolve().name, names, net.num_experts, count).encode())


def model_card(name: str, degradations: list[str], experts: int | None, parameters: int) -> str:
    """Gives the beginning of a model card: what a hub wants to know, and how to restore an image."""
    what = f'{experts} low-rank experts' if experts else 'no experts'
    return f"""---
library_name: lorair
pipeline_tag: image-to-image
tags: [image-restoration, lora-ir, {', '.join(degradations)}]
---
# {name}

A [LoRA-IR](https://arxiv.org/abs/2410.15385) restorer, guided by its degradation router: {', '.join(degradations)};
{what}, {parameters / 1e6:.1f}M parameters.

```bash
lorair restore photo.jpg -o restored.png --weights FOLDER_OR_NAME
```

```python
from lorair_arch import Restorer

restorer = Restorer.from_pretrained('FOLDER_OR_NAME')
restored = restorer('photo.jpg')
```

## Training data, results, limits

To be written by whoever has trained it.
"""
