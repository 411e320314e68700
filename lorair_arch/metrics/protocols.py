"""The published ways of measuring, by name: the one table for `lorair evaluate --protocol` and `val.protocol`.

The same images measured in two ways can be decibels apart: numbers may stand side by side only if their protocol is
the same. `published.yml` says by which the numbers of each setting were measured.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from lorair_arch.errors import OptionsError, did_you_mean


class Protocol(NamedTuple):
    """A way of measuring.

    Attributes:
        what: how it measures, in the words of a sentence.
        used_by: who publishes numbers that were measured so.
        metrics: options of each metric by its name, as in `val.metrics`.
    """

    what: str
    used_by: str
    metrics: dict[str, dict[str, Any]]


def _pair(family: str = '', **options: Any) -> dict[str, dict[str, Any]]:
    return {name: {'type': f'calculate_{name}{family}', **options} for name in ('psnr', 'ssim')}


PROTOCOLS = {
    'rgb': Protocol(
        "RGB, whole images, SSIM in a Gaussian window of 11 x 11 (BasicSR's functions)",
        'NAFNet and others on GoPro, HIDE, SIDD, LOL; DA-CLIP (ten tasks)',
        _pair(crop_border=0),
    ),
    'y': Protocol(
        "luma (Y of YCbCr, as MATLAB's), whole images, SSIM in a Gaussian window of 11 x 11 (BasicSR's functions)",
        'MPRNet, Restormer and others on Rain100L, Rain100H, Test100, Test1200, Test2800',
        _pair(crop_border=0, test_y_channel=True),
    ),
    'airnet': Protocol(
        "RGB, cut around the centre to multiples of 16, SSIM in a uniform window of 7 x 7 (scikit-image's defaults)",
        'AirNet, PromptIR, AdaIR, MoCE-IR and others (three and five tasks)',
        _pair('_skimage', multiple_of=16),
    ),
    'onerestore': Protocol(
        "RGB, whole images, SSIM in a uniform window of 7 x 7 (scikit-image's defaults)",
        'OneRestore (CDD-11)',
        _pair('_skimage'),
    ),
    'gaussian': Protocol(
        'RGB, whole images, SSIM in a Gaussian window of 11 x 11 (scikit-image; rgb but for rounding, without BasicSR)',
        'scripts that call scikit-image as its documentation gives it for Wang et al. (TIP 2004)',
        {
            'psnr': {'type': 'calculate_psnr_skimage'},
            'ssim': {'type': 'calculate_ssim_skimage', 'gaussian': True},
        },
    ),
    'allweather': Protocol(
        'one channel: the weights of luma on B, G, R in the order of R, G, B, not rounded; SSIM in a uniform window of '
        '11 x 11',
        'Histoformer, LoRA-IR (Table 1), MODEM (all-weather)',
        _pair('_allweather'),
    ),
    'perceptual': Protocol(
        'LPIPS (AlexNet) against the ground truth, NIQE without it; lower is better for both',
        'papers on generative restoration, beside PSNR and SSIM',
        {
            'lpips': {'type': 'calculate_lpips', 'better': 'lower'},
            'niqe': {'type': 'calculate_niqe', 'crop_border': 0, 'better': 'lower'},
        },
    ),
}


def protocol(name: str, where: str) -> Protocol:
    """Gives a protocol.

    Raises:
        OptionsError: There is none of this name; `where` begins the sentence.
    """
    if name not in PROTOCOLS:
        raise OptionsError(f'{where}: found {name!r}, expected a protocol{did_you_mean(name, PROTOCOLS)}')
    return PROTOCOLS[name]
