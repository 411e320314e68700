"""Data sets of BasicSR and of others, made to name the files that they cannot use."""

from __future__ import annotations

from typing import Any

import cv2
import torch
from basicsr.data import build_dataset as build_of_basicsr

from lorair_arch.data.all_in_one_dataset import AllInOneDataset
from lorair_arch.errors import DataError, LoRAIRError

# What they raise when a file is missing, has no partner, or is no image.
MISTAKES = (AssertionError, AttributeError, TypeError, ValueError, OSError, cv2.error)


def build_dataset(dataset_opt: dict[str, Any]) -> torch.utils.data.Dataset:
    """Builds a data set of any package; what it refuses becomes a `DataError` that names the data set."""
    try:
        dataset = build_of_basicsr(dataset_opt)
    except LoRAIRError:
        raise
    except MISTAKES as error:
        raise DataError(f'data set {dataset_opt["name"]}: {error}') from error
    if len(dataset) == 0:
        raise DataError(f'data set {dataset_opt["name"]}: there are no images in it; check its paths')
    return dataset if isinstance(dataset, AllInOneDataset) else NamedDataset(dataset)


class NamedDataset(torch.utils.data.Dataset):
    """Any map-style data set; when a sample cannot be read, the error has the names of its files.

    Args:
        dataset: its attributes are this one's too; those read here are `opt` and, if it is there, BasicSR's `paths`.
    """

    def __init__(self, dataset: torch.utils.data.Dataset) -> None:
        self.dataset = dataset

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # asked for while unpickling, when there is none yet
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except LoRAIRError:
            raise
        except MISTAKES as error:
            reason = f'{type(error).__name__}: {" ".join(str(error).split())}'
            raise DataError(
                f'data set {self.opt["name"]}: {self._files(index)} cannot be used ({reason}); check the files'
            ) from error

    def _files(self, index: int) -> str:
        paths = getattr(self.dataset, 'paths', None)
        if not isinstance(paths, list) or index >= len(paths):
            return f'sample {index}'
        return ' or '.join(paths[index].values()) if isinstance(paths[index], dict) else str(paths[index])
