"""Installs LoRA-IR as a plugin of BasicSR, with the commands `basicsr` and `lorair`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

root = Path(__file__).parent
version = re.search(r"__version__ = '(.+)'", (root / 'lorair_arch/__init__.py').read_text()).group(1)

setup(
    name='lorair',
    version=version,
    description='LoRA-IR for BasicSR: all-in-one image restoration with low-rank experts',
    long_description=(root / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['lorair_arch', 'lorair_arch.*']),
    package_data={'lorair_arch.metrics': ['published.yml'], 'lorair_arch.weights': ['zoo/*/*']},
    python_requires='>=3.10',
    install_requires=[
        # BasicSR trains and tests; it cannot be built on 3.13, where all the rest works. It brings tb-nightly:
        # tensorboard beside it would have the same plugins twice, and not start.
        "basicsr>=1.4.2,<1.5; python_version < '3.13'",
        'huggingface_hub>=1,<3',  # weights by name; open_clip brings it too
        'imagecodecs>=2025.3.30',  # all compressions of TIFF files; all bits of PNG, JPEG 2000, AVIF
        'lmdb>=1.4',
        'numpy>=1.26',
        'open_clip_torch>=2.29',  # knows the paper's ViT-L-14-336-quickgelu
        'opencv-python>=4.8',
        'packaging',
        'pillow>=11.3',  # reads AVIF
        'psutil>=5.9',
        'pyyaml>=6',
        'safetensors>=0.4',
        'scikit-image>=0.22',
        'setuptools<82',  # TensorBoard imports pkg_resources
        'tabulate>=0.9',
        'tifffile>=2025.5.10',
        'torch>=2.6',  # before, weights_only=True could be made to run code (CVE-2025-32434)
        'torchvision>=0.21',
        'tqdm',
    ],
    extras_require={
        'demo': ['gradio>=6.31,<7'],  # it holds Pillow back: where versions are pinned, it has constraints-demo.txt
        'dev': ['hypothesis', 'matplotlib>=3.9', 'playwright>=1.50', 'pytest>=8', 'pytest-xdist', 'ruff'],
        'heif': ['pillow-heif>=1.1'],  # photographs of iPhones
        'lpips': ['torchmetrics>=1.4'],  # LPIPS in evaluations and tests
        'jxl': ['pillow-jxl-plugin>=1.3.4'],
        # files of lorair export; where they run, onnxruntime is enough
        'onnx': ['onnx>=1.19', 'onnxruntime>=1.23', 'onnxscript>=0.5'],
        'ray': ['ray[data]>=2.40'],
        'spandrel': ['spandrel>=0.4'],
        # what scripts/benchmark/zoo_results.py compares with; bm3d is for non-commercial use only
        'benchmark': ['bm3d>=4.0', 'h5py>=3.10', 'neuro-low-light>=0.1', 'PyWavelets>=1.6'],
    },
    entry_points={
        'console_scripts': ['basicsr = lorair_arch.cli:basicsr', 'lorair = lorair_arch.cli:lorair'],
        'basicsr.plugins': ['lorair = lorair_arch:register'],
    },
)
