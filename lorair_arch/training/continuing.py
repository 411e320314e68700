"""Continuing a training with other options: which of them may change, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY

from lorair_arch.errors import CheckpointError, OptionsError
from lorair_arch.options.keys import FINETUNE, ROUTER
from lorair_arch.schema import show
from lorair_arch.weights.loading import check_fit, other_classes, state_dict_of

# What a run adds to its options, and what says where it goes on.
_NOT_IN_THE_FILE = ('auto_resume', 'dist', 'is_train', 'name', 'path', 'progress', 'rank', 'root_path', 'world_size')
_PATHS = ('pretrain_network_', 'param_key_', 'prior_cache')
# Whatever decides which parameters the optimiser has moments of, and its value where the file is silent.
_TRAINABLE = {FINETUNE: ('train.trainable', 'lora'), ROUTER: ('network_router.freeze_clip', True)}


def options_of(opt: dict[str, Any]) -> dict[str, Any]:
    """Gives what an options file says, by places such as 'train.optim_g.lr', to be kept in training states.

    Args:
        opt: The options, before anything has been built of them: BasicSR takes some of them out.
    """
    said = {key: value for key, value in opt.items() if key not in _NOT_IN_THE_FILE}
    said['path'] = {key: value for key, value in opt['path'].items() if key.startswith(_PATHS)}
    return dict(_leaves(said, ''))


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Gives every value that is not null; a list without mappings is one value."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f'{place}.{key}' if place else str(key))
    elif isinstance(value, (list, tuple)) and any(isinstance(item, dict) for item in value):
        for i, item in enumerate(value):
            yield from _leaves(item, f'{place}[{i}]')
    elif value is not None:
        # Of lists and tuples one: they say the same, but are not equal.
        yield place, list(value) if isinstance(value, (list, tuple)) else value


def changes(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Gives the old and the new value of every option that is not as it was; None: it is not given."""
    places = dict.fromkeys((*now, *before))
    pairs = {place: (before.get(place), now.get(place)) for place in places}
    return {place: (was, value) for place, (was, value) in pairs.items() if was != value}


def in_words(changed: dict[str, tuple[Any, Any]]) -> str:
    """Lists changes: 'train.total_iter 16 (was 8), train.amp not given (was 'bf16')'."""
    texts = {
        place: ['not given' if value is None else show(value) for value in pair] for place, pair in changed.items()
    }
    return ', '.join(f'{place} {now} (was {was})' for place, (was, now) in texts.items())


def check_continuable(opt: dict[str, Any], state: dict[str, Any], path: str, networks: Path) -> None:
    """Compares options with a training state before anything is built.

    Args:
        opt, state, path: The options, the state and its file.
        networks: The folder of the weights that were saved along.

    Raises:
        OptionsError: The training cannot be continued with these options; all reasons are named.
    """
    iteration, total = state['iter'], int(opt['train']['total_iter'])
    if total < iteration:
        raise OptionsError(
            f'train.total_iter: found {total}, expected at least {iteration}: that far {path} has come '
            '(path.resume_state names an earlier state)'
        )
    reasons = [*_other_options(opt, state), *_other_optimizer(opt, state), *_other_networks(opt, networks, iteration)]
    if reasons:
        raise OptionsError(
            f'{path} cannot be continued with other options: {"; ".join(dict.fromkeys(reasons))}; set them back, or '
            f'begin a new training without --auto_resume and path.resume_state, from weights in {networks} if they fit'
        )


def _other_options(opt: dict[str, Any], state: dict[str, Any]) -> Iterator[str]:
    """Finds changes of what stays as it is: the model class, the type of its optimisers, what is trainable."""
    if 'options' not in state:
        return
    now, before = options_of(opt), dict(state['options'])
    place, default = _TRAINABLE.get(opt['model_type'], ('', None))
    for options in (now, before):
        options.setdefault(place, default)  # a default that is written out later is no change
    fixed = {'model_type', place, *(key for key in now if _is_optimizer(key) and key.endswith('.type'))}
    changed = changes(before, now)
    found = {place: pair for place, pair in changed.items() if place in fixed and pair[0] is not None}
    if found:
        yield in_words(found)


def _is_optimizer(place: str) -> bool:
    return place.startswith('train.optim_')


def _other_optimizer(opt: dict[str, Any], state: dict[str, Any]) -> Iterator[str]:
    """Finds settings of the one optimiser of a training that need what its state does not hold, by trying them."""
    names = [key for key in opt['train'] if key.startswith('optim_')]
    # Of a GAN's several optimisers a state does not say which is whose.
    if len(names) != 1 or len(state['optimizers']) != 1:
        return
    name, saved = names[0], state['optimizers'][0]
    param = torch.nn.Parameter(torch.ones(2, 2))  # a matrix: some optimisers keep moments of rows and columns
    now = _optimizer(opt['train'][name], param)
    if now is None:
        return
    # Schedulers add `initial_lr` to the groups.
    unknown = saved['param_groups'][0].keys() - now.param_groups[0].keys() - {'initial_lr'}
    if unknown:  # states of older versions do not tell the type
        yield f'train.{name}.type {opt["train"][name]["type"]} (was one with {", ".join(sorted(unknown))})'
        return
    prefix = f'train.{name}.'
    before = {key.removeprefix(prefix): v for key, v in state.get('options', {}).items() if key.startswith(prefix)}
    if before and before.get('type') == opt['train'][name]['type']:
        # Which moments a setting needs (amsgrad, momentum) only the optimiser knows: one step of each tells.
        old = _optimizer(before, param)
        param.grad = torch.ones_like(param)
        old.step()
        try:
            load_moments(now, old.state_dict())
            now.step()
        except KeyError as error:
            changed = changes(before, opt['train'][name])
            yield f'train.{name}: {in_words(changed)}, for which there is no {error.args[0]}'


def _optimizer(settings: dict[str, Any], param: torch.nn.Parameter) -> torch.optim.Optimizer | None:
    kind = getattr(torch.optim, settings['type'], None)
    return kind([param], **{key: value for key, value in settings.items() if key != 'type'}) if kind else None


def _other_networks(opt: dict[str, Any], folder: Path, iteration: int) -> Iterator[str]:
    """Finds networks that the weights do not fit any more; they are built without their memory."""
    for key, settings in opt.items():
        file = folder / f'net_{key.removeprefix("network_")}_{iteration}.pth'
        if not key.startswith('network_') or not file.exists():
            continue
        try:
            with torch.device('meta'):
                net = _build(settings)
        except Exception:  # of other packages, which may want memory: they are built soon enough
            continue
        state_dict, description = state_dict_of(file)
        mistake = other_classes(description or {}, opt.get('degradations'))
        if mistake:
            yield f'{file} {mistake}'
        try:
            # Anything may be missing: a file of experts holds no more than them.
            check_fit(net, state_dict, allow_missing=tuple(net.state_dict()), path=file)
        except CheckpointError as error:
            yield f'{key}: {error}'


def _build(settings: dict[str, Any]) -> torch.nn.Module:
    # CLIP's weights come from the checkpoint: nothing is to be downloaded for this check.
    settings = settings | ({'pretrained': None} if 'pretrained' in settings else {})
    return ARCH_REGISTRY.get(settings['type'])(**{key: value for key, value in settings.items() if key != 'type'})


def load_moments(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Gives an optimiser the moments of a saved one; its own settings stay."""
    # PyTorch's `load_state_dict` would bring back the old rate, decay and betas along with the moments.
    groups = optimizer.state_dict()['param_groups']
    groups = [group | {'params': before['params']} for group, before in zip(groups, saved['param_groups'])]
    optimizer.load_state_dict({'state': saved['state'], 'param_groups': groups})
