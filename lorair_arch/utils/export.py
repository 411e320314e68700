"""Merges the experts of one degradation into a plain network, for those who need no other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lorair_arch.data.checks import did_you_mean
from lorair_arch.errors import CheckpointError, OptionsError
from lorair_arch.utils.checkpoint import save_file
from lorair_arch.utils.convert import check_weights_output
from lorair_arch.utils.pretrained import check_classes, choose_restorer, load, read_weights
from lorair_arch.utils.recognise import describe


def export(
    inputs: Sequence[str | os.PathLike], output: str | os.PathLike, degradation: str, overwrite: bool = False
) -> str:
    """Writes the plain network that the experts of one degradation make of a restorer.

    Args:
        inputs: Files of weights, or folders of them: a restorer with experts, or a restorer and its experts. A router
            among them gives the degradations their names where the experts do not. Averaged weights (EMA) are taken
            where there are any.
        output: Where to, `.safetensors` or `.pth`. The file holds a restorer without experts, the options of its
            network and the degradation (`merged_for`).
        degradation: Name of the degradation; its number from 0 if the weights hold no names.
        overwrite: Whether the output may replace a file that exists, other than an input.

    Returns:
        One line that says what was read and written.

    Raises:
        CheckpointError: The input is damaged, incomplete or has no experts, or the output cannot be written.
        OptionsError: The output's name does not fit, or there is no such degradation.
        OutputError: The output exists, or is an input.
    """
    output = Path(output)
    files = read_weights(inputs)
    check_weights_output(output, overwrite, files.values())
    weights = choose_restorer(files)
    check_classes(files)
    options = weights.options()
    lora = options.pop('lora', None)
    if not lora:
        raise CheckpointError(f'{weights.path} holds {describe(weights.state_dict)}: there is nothing to merge')
    named = weights.degradations or ('router' in files and files['router'].degradations)
    names = named or [str(i) for i in range(lora['num_experts'])]
    if degradation not in names:
        raise OptionsError(f'--degradation is {degradation!r}{did_you_mean(degradation, names)}')
    state_dict = load(weights).merge(names.index(degradation)).state_dict()
    meta = {'kind': 'restorer', 'network': options, 'degradations': named or [], 'merged_for': degradation}
    save_file({'params': state_dict, 'lorair': meta}, output)
    size = sum(value.numel() for value in state_dict.values()) / 1e6
    return f'{weights.path}: experts for {degradation} merged; written to {output} ({size:.1f}M parameters)'
