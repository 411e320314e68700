"""Classical methods that the weights of the zoo are measured against: each a short function, with its paper.

Every function takes and gives an image: RGB, uint8 [H, W, 3]. The values of their keyword arguments are what
tune_classical.py found best in PSNR on photographs that are in no test, unless a comment says that they are the
paper's. Those against noise are told the level of Gaussian noise where there is one, as is usual in papers; else they
estimate it. Nothing else is told.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files

import cv2
import numpy as np
import torch
from skimage.restoration import estimate_sigma, richardson_lucy
from skimage.restoration import wiener as skimage_wiener

from lorair_arch.errors import OptionsError

Step = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Peer:
    """A method, or several one after the other.

    Attributes:
        name: As the tables have it.
        steps: Functions of an image.
        needs: The package that it is in, if it is not one that lorair needs anyway.
    """

    name: str
    steps: tuple[Step, ...]
    needs: tuple[str, ...] = ()

    def __call__(self, image: np.ndarray) -> np.ndarray:
        for step in self.steps:
            image = step(image)
        return image

    def settings(self) -> str:
        """Gives names and all values of the functions, to tell whether something has changed."""
        return '; '.join(f'{getattr(step, "func", step).__name__}{inspect.signature(step)}' for step in self.steps)


def peers_of(troubles: Sequence[str], sigma: float | None = None) -> list[Peer]:
    """Gives the methods against what is wrong with an image, the strongest first.

    Args:
        troubles: Names of degradations in the order in which they came about. Against several: the strongest method
            against each, one after the other, the last trouble first.
        sigma: The level of the noise (0 to 255), if it is known; else it is estimated.
    """
    if len(troubles) > 1:
        chain = [peers_of([trouble])[0] for trouble in reversed(troubles)]
        steps = tuple(step for peer in chain for step in peer.steps)
        needs = tuple(package for peer in chain for package in peer.needs)
        return [Peer(' + '.join(peer.name for peer in chain), steps, needs)]
    wavelets = () if sigma else ('pywt',)  # of which scikit-image estimates the noise
    known = {
        'noise': [
            Peer('BM3D', (partial(bm3d, sigma=sigma),), ('bm3d', *wavelets)),
            Peer('NLM', (partial(non_local_means, sigma=sigma),), wavelets),
        ],
        'rain': [Peer('guided', (guided,)), Peer('median', (median,))],
        'haze': [Peer('dark channel', (dark_channel,))],
        'blur': [
            Peer('unsharp', (unsharp,)),
            Peer('Wiener', (wiener,)),
            Peer('Richardson-Lucy', (deconvolved,)),
        ],
        'lowlight': [
            Peer('gamma', (gamma,)),
            Peer('CLAHE', (clahe,)),
            Peer('Zero-DCE++', (zero_dce,), ('neuro_low_light',)),
        ],
        'jpeg': [Peer('bilateral', (bilateral,)), Peer('NLM on luma', (luma_non_local_means,))],
    }
    return known.get(troubles[0], []) if troubles else []


def check_installed(peers: Sequence[Peer]) -> None:
    """Raises an OptionsError that names the first method whose package is missing."""
    for peer in peers:
        for package in peer.needs:
            if importlib.util.find_spec(package) is None:
                raise OptionsError(
                    f"{peer.name} needs the package {package}: install it with pip install -e '.[benchmark]' "
                    '-c constraints.txt, or leave the classical methods out with --no-peers'
                )


def noise_level(image: np.ndarray) -> float:
    """Estimates the standard deviation of the noise (0 to 255).

    Source: Donoho and Johnstone, "Ideal Spatial Adaptation by Wavelet Shrinkage", Biometrika 1994.
    """
    return max(float(estimate_sigma(image.astype(np.float32), channel_axis=2, average_sigmas=True)), 1.0)


def bm3d(image: np.ndarray, sigma: float | None = None) -> np.ndarray:
    """Denoises by transforms of groups of similar blocks, with the paper's values.

    Source: Dabov et al., "Image Denoising by Sparse 3-D Transform-Domain Collaborative Filtering", TIP 2007 (in
    colour: ICIP 2007); the authors' package bm3d.
    """
    from bm3d import bm3d_rgb

    return _to_uint8(bm3d_rgb(image / 255, (sigma or noise_level(image)) / 255))


def non_local_means(
    image: np.ndarray, sigma: float | None = None, luma: float = 0.7, colour: float = 1.0
) -> np.ndarray:
    """Averages similar patches; `luma` and `colour` are the strengths in levels of noise.

    Source: Buades et al., "A Non-Local Algorithm for Image Denoising", CVPR 2005; OpenCV's, in the colour space Lab.
    """
    level, bgr = sigma or noise_level(image), np.ascontiguousarray(image[..., ::-1])
    return cv2.fastNlMeansDenoisingColored(bgr, None, luma * level, colour * level, 7, 21)[..., ::-1]


def median(image: np.ndarray, size: int = 3) -> np.ndarray:
    """Takes the median of each channel over `size` x `size` pixels.

    Source: Tukey, "Exploratory Data Analysis", 1977; against rain as in Hase et al., "Real-time snowfall noise
    elimination", ICIP 1999.
    """
    return cv2.medianBlur(image, size)


def guided(image: np.ndarray, radius: int = 8, eps: float = 0.003) -> np.ndarray:
    """Smooths each channel where it has no edges, guided by itself.

    Source: He et al., "Guided Image Filtering", ECCV 2010; against rain as in Xu et al., "Removing Rain and Snow in a
    Single Image Using Guided Filter", CSAE 2012.
    """
    channels = cv2.split(image.astype(np.float32) / 255)
    return _to_uint8(cv2.merge([_guided(channel, channel, radius, eps) for channel in channels]))


def dark_channel(image: np.ndarray, omega: float = 0.85, patch: int = 15, floor: float = 0.1) -> np.ndarray:
    """Estimates the haze by the darkest channel of patches, refined by a guided filter, and takes it away.

    Source: He et al., "Single Image Haze Removal Using Dark Channel Prior", CVPR 2009; patch, floor of the transmission
    and 0.1 % of the pixels for the light are the paper's, the filter's radius and eps those of the ECCV paper.
    """
    rgb, kernel = image.astype(np.float32) / 255, np.ones((patch, patch), np.uint8)
    dark = cv2.erode(rgb.min(axis=2), kernel)
    haziest = np.argsort(dark, axis=None)[-max(1, dark.size // 1000) :]
    light = rgb.reshape(-1, 3)[haziest].mean(axis=0)
    seen = 1 - omega * cv2.erode((rgb / np.maximum(light, 1e-3)).min(axis=2), kernel)
    seen = _guided(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), seen, 60, 1e-4)
    return _to_uint8((rgb - light) / np.maximum(seen, floor)[..., None] + light)


def unsharp(image: np.ndarray, sigma: float = 5.0, amount: float = 0.25) -> np.ndarray:
    """Adds what a Gaussian blur takes away.

    Source: Gonzalez and Woods, "Digital Image Processing", section 3.6.
    """
    rgb = image.astype(np.float32) / 255
    return _to_uint8(rgb + amount * (rgb - cv2.GaussianBlur(rgb, (0, 0), sigma)))


def wiener(image: np.ndarray, sigma: float = 0.7, balance: float = 0.01) -> np.ndarray:
    """Inverts an assumed Gaussian blur in the Fourier domain, regularised.

    Source: Hunt, "A Matrix Theory Proof of the Discrete Convolution Theorem", 1971; scikit-image's restoration.wiener.
    """
    return _deconvolve(image, sigma, partial(skimage_wiener, balance=balance, clip=False))


def deconvolved(image: np.ndarray, sigma: float = 0.7, steps: int = 4) -> np.ndarray:
    """Inverts an assumed Gaussian blur step by step.

    Source: Richardson, "Bayesian-Based Iterative Method of Image Restoration", 1972; scikit-image's richardson_lucy.
    """
    return _deconvolve(image, sigma, partial(richardson_lucy, num_iter=steps, filter_epsilon=1e-6))


def gamma(image: np.ndarray, mean: float = 0.5) -> np.ndarray:
    """Raises to the power that takes the mean brightness to a fixed one.

    Source: Gonzalez and Woods, "Digital Image Processing", section 3.2.
    """
    rgb = image.astype(np.float32) / 255
    return _to_uint8(rgb ** (np.log(mean) / np.log(np.clip(rgb.mean(), 0.001, 0.999))))


def clahe(image: np.ndarray, limit: float = 8.0, tiles: int = 2) -> np.ndarray:
    """Equalises the histogram of the lightness L of tiles, with limited contrast.

    Source: Zuiderveld, "Contrast Limited Adaptive Histogram Equalization", Graphics Gems IV, 1994.
    """
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(limit, (tiles, tiles)).apply(lab[..., 0])
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def zero_dce(image: np.ndarray) -> np.ndarray:
    """Brightens by curves that a small network chooses for each pixel: not classical, but small as ours.

    Source: Li et al., "Learning to Enhance Low-Light Image via Zero-Reference Deep Curve Estimation" (Zero-DCE++),
    PAMI 2021; network and weights of the package neuro-low-light.
    """
    tensor = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32) / 255)[None]
    with torch.inference_mode():
        enhanced, _ = _zero_dce_network()(tensor)
    return _to_uint8(enhanced[0].permute(1, 2, 0).numpy())


def luma_non_local_means(image: np.ndarray, strength: float = 6.0) -> np.ndarray:
    """Averages similar patches of the luma; see `non_local_means`."""
    return _on_luma(image, lambda luma: cv2.fastNlMeansDenoising(luma, None, strength, 7, 21))


def bilateral(image: np.ndarray, levels: float = 20.0, pixels: float = 1.0) -> np.ndarray:
    """Averages near pixels of similar luma, which smooths the borders of JPEG's blocks.

    Source: Tomasi and Manduchi, "Bilateral Filtering for Gray and Color Images", ICCV 1998; against JPEG as in Zhang
    and Gunturk, "Compression Artifact Reduction with Adaptive Bilateral Filtering", VCIP 2009.
    """
    return _on_luma(image, lambda luma: cv2.bilateralFilter(luma, -1, levels, pixels))


def _on_luma(image: np.ndarray, step: Step) -> np.ndarray:
    parts = cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)
    parts[..., 0] = step(np.ascontiguousarray(parts[..., 0]))
    return cv2.cvtColor(parts, cv2.COLOR_YCrCb2RGB)


def _guided(guide: np.ndarray, image: np.ndarray, radius: int, eps: float) -> np.ndarray:
    """Filters `image` [H, W] so that in every window it is a linear function of `guide` [H, W]."""

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, (2 * radius + 1,) * 2, borderType=cv2.BORDER_REFLECT)

    mean_g, mean_i = mean(guide), mean(image)
    slope = (mean(guide * image) - mean_g * mean_i) / (mean(guide * guide) - mean_g**2 + eps)
    return mean(slope) * guide + mean(mean_i - slope * mean_g)


def _deconvolve(image: np.ndarray, sigma: float, method: Callable) -> np.ndarray:
    radius = int(np.ceil(3 * sigma))
    line = cv2.getGaussianKernel(2 * radius + 1, sigma)
    margin = 4 * radius  # mirrored, so that the borders do not ring
    wide = cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_REFLECT) / 255
    sharp = np.dstack([method(channel, line @ line.T) for channel in cv2.split(wide)])
    return _to_uint8(sharp[margin:-margin, margin:-margin])


@cache
def _zero_dce_network() -> torch.nn.Module:
    from neuro_low_light.model import ZeroDCEPP

    file = files('neuro_low_light') / 'weights' / 'best_model.pth'
    network = ZeroDCEPP()
    network.load_state_dict(torch.load(str(file), map_location='cpu', weights_only=True)['model_state_dict'])
    return network.eval()


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
