"""k-means of many vectors by scikit-learn's mini-batches: units of speech are made of millions of frames.

Letters: `N` vectors, `D` width of a vector, `K` centres.

Source: Sculley 2010, "Web-Scale K-Means Clustering", algorithm 1; its use for units: Hsu et al. 2021 (HuBERT).
"""

from __future__ import annotations

import warnings

import torch
from sklearn.cluster import MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from components.quantizers.quantized import QuantizerError


def minibatch_kmeans(
    vectors: Tensor, count: int, *, seed: int, batch_size: int = 4_096, passes: int = 20, starts: int = 3
) -> Tensor:
    """Return centres (K, D), float32, of vectors (N, D).

    Args:
        vectors: (N, D), on any device; computed on the CPU.
        count: K.
        seed: Equal seeds give equal centres.
        batch_size: Vectors of one update.
        passes: Most passes over the vectors; it stops before where it no longer gets better.
        starts: k-means++ seedings that the best is taken of.

    Raises:
        QuantizerError: There are fewer vectors than centres.
    """
    if len(vectors) < count:
        raise QuantizerError(f"{len(vectors)} vectors for {count} centres; give at least as many vectors as centres.")
    model = MiniBatchKMeans(
        count,
        batch_size=min(batch_size, len(vectors)),
        max_iter=passes,
        n_init=starts,
        random_state=seed % (1 << 32),
        max_no_improvement=50,
        reassignment_ratio=0.01,
    )
    with warnings.catch_warnings():
        # Equal vectors (silence) leave fewer distinct ones than centres; the rest repeat, which is no fault here.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(vectors.detach().float().cpu().numpy())
    return torch.from_numpy(model.cluster_centers_).float()
