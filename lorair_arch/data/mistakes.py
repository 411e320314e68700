"""What is wrong with many images at once: told in one sentence, or image by image."""

from __future__ import annotations

from typing import NamedTuple


class Mistake(NamedTuple):
    """The same mistake of one or more images: a sentence in whose middle they are named.

    Attributes:
        before: how the sentence begins.
        items: the images, as they are to be named, with quotes.
        after: how it ends.
    """

    before: str
    items: list[str]
    after: str

    def sentence(self) -> str:
        """Names the first three and counts the rest."""
        more = f' and {len(self.items) - 3} more' if len(self.items) > 3 else ''
        return self.before + ', '.join(self.items[:3]) + more + self.after

    def lines(self) -> list[str]:
        """Gives a sentence for each."""
        return [self.before + item + self.after for item in self.items]


def quoted(names: list[str]) -> list[str]:
    return [f"'{name}'" for name in names]


def too_small(path: str, size: tuple[int, int], gt_size: int, can_pad: bool = True) -> str:
    """Says that an image of the size (width, height) is smaller than the training crops."""
    remedy = 'remove it, lower gt_size or set pad_small' if can_pad else 'remove it or lower gt_size'
    return f"'{path}' ({size[0]} x {size[1]} pixels) is smaller than gt_size ({gt_size}); {remedy}"


def different_sizes(lq_path: str, lq: tuple[int, int], gt_path: str, gt: tuple[int, int], scale: int = 1) -> str:
    """Says that the images of a pair, of the sizes (width, height), cannot lie on top of each other."""
    rule = 'the images of a pair must have the same size' if scale == 1 else f'it must be {scale} times as large'
    return f"'{lq_path}' is {lq[0]} x {lq[1]} pixels but its ground truth '{gt_path}' is {gt[0]} x {gt[1]}; {rule}"
