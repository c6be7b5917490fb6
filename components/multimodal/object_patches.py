"""Which patches of a scene show which object.

Letters: `B` scenes, `H W` pixels, `K` objects of a scene (at most), `P` patches (row by row).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from components.data import png, tables

_BLOCK = 2048


class ObjectPatches(NamedTuple):
    """Objects of some scenes.

    Attributes:
        shown: Whether a patch shows an object, bool (B, K, P).
        exists: Whether any patch shows it, bool (B, K).
    """

    shown: Tensor
    exists: Tensor

    def hit(self, kept: Tensor) -> Tensor:
        """Return how many objects of each scene at least one of the kept patches, int64 (B, N), shows, int64 (B,)."""
        places = kept[:, None].expand(-1, self.shown.shape[1], -1)
        return self.shown.gather(2, places).any(2).sum(1)


def object_patches(masks: np.ndarray, objects: int, patch_size: int) -> ObjectPatches:
    """Return which patches show which object: it covers a quarter of the patch or more.

    Args:
        masks: uint8 (B, H, W), 0 for the background and 1 .. K for the objects; other values are no objects.
        objects: K.
        patch_size: Side of a patch in pixels.
    """
    shown = []
    for first in range(0, len(masks), _BLOCK):
        part = masks[first : first + _BLOCK]
        count, side, _ = part.shape
        rows = side // patch_size
        tiles = part.reshape(count, rows, patch_size, rows, patch_size).swapaxes(2, 3).reshape(count, rows * rows, -1)
        covered = np.stack([(tiles == 1 + index).sum(2) for index in range(objects)], 1)
        shown.append(torch.from_numpy(covered * 4 >= patch_size**2))
    every = torch.cat(shown)
    return ObjectPatches(every, every.any(2))


def read_object_patches(directory: Path, split: str, count: int, objects: int, patch_size: int) -> ObjectPatches:
    """Read the objects of the first `count` scenes of a split of a data set of `components.data.shapes`."""
    rows = tables.read_split(directory, split, ("mask",)).head(count)
    return object_patches(png.decode(rows["mask"].to_list())[..., 0], objects, patch_size)
