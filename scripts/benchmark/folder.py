"""Measures how fast a folder is restored next to the network alone on the same images; prints two tables.

    python scripts/benchmark/folder.py --weights lorair-tiny --photos ~/pictures

Of the photographs in a folder as many as asked for are made, all of the same number of pixels, as JPEG files. They are
restored in parts, in turn by `lorair restore` (decoding, router, restorer, encoding and writing, which overlap) and
by the network alone, which gets them decoded: a machine that slows down slows both.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from tabulate import tabulate
from tqdm import tqdm

from lorair_arch import Restorer
from lorair_arch.data.images.photo import Photo
from lorair_arch.data.images.reading import read_photo
from lorair_arch.data.images.writing import encode_photo, in_8_bits, write_photo
from lorair_arch.data.stores import image_files, natural_sort
from lorair_arch.errors import DataError, LoRAIRError
from lorair_arch.restoring.plan import plan
from lorair_arch.restoring.run import Steps, Stop, run
from lorair_arch.restoring.settings import FORMATS, Settings

_PART = 10  # images that are restored before the other has its turn


def make_photos(source: Path, folder: Path, count: int, megapixels: float) -> None:
    """Makes `count` JPEG files of the photographs in a folder, each of `megapixels`, mirrored when they come again."""
    names = natural_sort(image_files(str(source)))
    if not names:
        raise DataError(f"--photos: '{source}' holds no images")
    for number in range(count):
        pixels = read_photo(source / names[number % len(names)]).rgb
        image = Image.fromarray(pixels if pixels.dtype == np.uint8 else in_8_bits(pixels))
        scale = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
        pixels = np.asarray(image)[:, :: -1 if number // len(names) % 2 else 1]
        write_photo(folder / f'{number:04}.jpg', Photo(pixels))


def measure(restorer: Restorer, folder: Path, settings: Settings) -> Counter[str]:
    """Gives the seconds of a whole run, of the network alone, and of each step alone."""
    seconds: Counter[str] = Counter()
    jobs = plan([folder], folder.with_name('restored'), settings).jobs
    suffix = jobs[0].target.suffix

    def timed(what: str, do: Callable):
        start = time.perf_counter()
        done = do()
        seconds[what] += time.perf_counter() - start
        return done

    restorer.restore(read_photo(jobs[0].source).pixels)  # what only the first one does
    with tqdm(total=len(jobs), desc='Measuring', unit='image') as bar:
        for first in range(0, len(jobs), _PART):
            part = jobs[first : first + _PART]
            photos = [timed('decode', lambda job=job: read_photo(job.source)) for job in part]
            results = [timed('network', lambda photo=photo: restorer.restore(photo.pixels).image) for photo in photos]
            timed('run', lambda part=part: list(run(part, Steps(restorer, settings), Stop())))
            for photo, result in zip(photos, results):
                timed('router', lambda photo=photo: restorer.degradations(photo.pixels))
                whole = photo._replace(pixels=result)
                timed('encode', lambda whole=whole: encode_photo(whole, suffix, settings.quality))
            bar.update(len(part))
    seconds['restorer'] = seconds['network'] - seconds['router']
    return seconds


def as_tables(seconds: Counter[str], count: int) -> str:
    """Gives what each step takes alone, and the run next to the network alone."""
    steps = [(name, f'{1000 * seconds[name] / count:.1f}') for name in ('decode', 'router', 'restorer', 'encode')]
    alone, together = count / seconds['network'], count / seconds['run']
    rates = [
        ('network alone', f'{alone:.2f}', ''),
        ('folder', f'{together:.2f}', f'{together / alone:.3f}'),
    ]
    return (
        tabulate(steps, ('step alone', 'ms/image'), 'github', disable_numparse=True)
        + '\n\n'
        + tabulate(rates, ('', 'images/s', 'ratio'), 'github', disable_numparse=True)
        + '\n'
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    add = parser.add_argument
    add('--weights', nargs='+', required=True, metavar='PATH', help='as of lorair restore')
    add('--photos', type=Path, required=True, metavar='FOLDER', help='photographs, of any size')
    add('--count', type=int, default=200, metavar='N', help='images; default: 200')
    add('--megapixels', type=float, default=0.5, metavar='X', help='of each; default: 0.5')
    add('--format', choices=FORMATS, default='png', help='of the results; default: png')
    add('--device', help='default: a GPU if there is one')
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix='lorair_folder_') as root:
            make_photos(args.photos.expanduser(), Path(root, 'photos'), args.count, args.megapixels)
            restorer = Restorer.from_pretrained([os.path.expanduser(path) for path in args.weights], args.device)
            seconds = measure(restorer, Path(root, 'photos'), Settings(format=args.format))
    except LoRAIRError as error:
        sys.stderr.write(f'error: {error}\n')
        return 2
    sys.stdout.write(as_tables(seconds, args.count))
    return 0


if __name__ == '__main__':
    sys.exit(main())
