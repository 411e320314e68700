"""Degradations by name, alone or one after the other, and the check of their options.

Each is a function of an RGB image (float32 [H, W, 3] in [0, 1]), a NumPy generator, its only source of randomness, and
`(low, high)` ranges, from which it draws its parameters uniformly. It returns a new image of the same shape and range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from lorair_arch.schema import Items, Section, Typed, Value, checked, is_number

from . import blur, camera, weather

Degradation = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def clean(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gives the image as it is: what is good already must be recognised, and come back unchanged."""
    return image.copy()


# What each parameter may be; the functions' own defaults are the usual ranges.
_OWN: dict[Callable[..., np.ndarray], dict[str, tuple[float, float]]] = {
    clean: {},
    camera.noise: {'sigma': (0, 255)},
    camera.sensor_noise: {'shot': (0, 1), 'read': (0, 255)},
    camera.camera_noise: {'shot': (0, 1), 'read': (0, 255), 'quality': (1, 100)},
    camera.lowlight: {
        'gamma': (1, 10),
        'alpha': (0, 1),
        'beta': (0, 1),
        'cast': (0, 1),
        'shot': (0, 1),
        'sigma': (0, 255),
    },
    camera.jpeg: {'quality': (1, 100), 'shift': (0, 7)},
    blur.blur: {'sigma': (0.1, 50)},
    blur.defocus: {'radius': (0, 100)},
    blur.motion_blur: {'length': (1, 200), 'angle': (-360, 360), 'bend': (0, 360)},
    weather.rain: {
        'density': (0, 1),
        'length': (1, 200),
        'width': (0.1, 20),
        'angle': (-360, 360),
        'intensity': (0, 1),
    },
    weather.haze: {'beta': (0, 20), 'airlight': (0, 1), 'tint': (0, 1), 'near': (0, 1)},
    weather.snow: {'density': (0, 1), 'size': (0.5, 50), 'intensity': (0, 1)},
    weather.raindrop: {'number': (0, 10_000), 'radius': (1, 200)},
}
DEGRADATIONS = {function.__name__: function for function in _OWN}
LIMITS = {function.__name__: limits for function, limits in _OWN.items()}
# Those that depend on what is where in the scene: a photograph is degraded before it is cropped. The depths of a crop
# made up by itself would be those of a whole scene, from near to far within some pixels.
OF_SCENES = {weather.haze.__name__}


def _range(lowest: float, highest: float) -> Value:
    def accepts(value: Any) -> bool:
        pair = value if isinstance(value, (list, tuple)) else (value, value)
        return len(pair) == 2 and all(map(is_number, pair)) and lowest <= pair[0] <= pair[1] <= highest

    return Value(accepts=accepts, expected=f'a number or [low, high] from {lowest:g} to {highest:g}, low first')


def _section(name: str) -> Section:
    return Section(keys={key: _range(*limits) for key, limits in LIMITS[name].items()})


class _Degradation(Typed):
    expected = 'a mapping such as {type: noise, sigma: [15, 50]}'


# what `degrade` may be; those that other packages add to DEGRADATIONS and LIMITS count too
OPTIONS = Items(item=_Degradation(what='degradation', types=lambda: DEGRADATIONS, section=_section), single=True)


def build_degradation(options: Mapping[str, Any] | Sequence[Mapping[str, Any]], where: str = 'degrade') -> Degradation:
    """Makes a function `(image, rng) -> image` of options such as `{type: noise, sigma: [15, 50]}`.

    Args:
        options: `type`, a name in `DEGRADATIONS`, and any of its parameters, each a number or `[low, high]`; or a list
            of such mappings, which are applied one after the other.
        where: the key that holds the options, for messages.

    Returns:
        A picklable function of an image and a generator, as above.

    Raises:
        OptionsError: for an unknown type or parameter, or a value that is not a range within its limits.
    """
    options = checked(OPTIONS, options, where)
    if isinstance(options, list):
        # `partial` of functions of the module: a lambda cannot be sent to spawned workers.
        return partial(_one_after_the_other, [_build_one(step) for step in options])
    return _build_one(options)


def is_of_scenes(options: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> bool:
    """Tells whether one of these degradations, see `build_degradation`, is of scenes (`OF_SCENES`)."""
    steps = [options] if isinstance(options, Mapping) else options
    return any(step['type'] in OF_SCENES for step in steps)


def _build_one(options: Mapping[str, Any]) -> Degradation:
    pairs = {key: value if isinstance(value, (list, tuple)) else (value, value) for key, value in options.items()}
    name = options['type']
    return partial(DEGRADATIONS[name], **{key: tuple(pair) for key, pair in pairs.items() if key != 'type'})


def _one_after_the_other(steps: list[Degradation], image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    for step in steps:
        image = step(image, rng)
    return image
