"""The table of a Markov chain as tensors, and the network that learns it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from components.data.tables import read

LETTERS = "AB"


def table(folder: Path) -> tuple[Tensor, Tensor]:
    """Return contexts (rows, 4) as zeros and ones and the probability (rows, 1) of each row's next letter."""
    chains = read(folder, "chains.parquet")
    rows = [
        [LETTERS.index(letter) for letter in state + following]
        for state, following in chains.select("state", "next").iter_rows()
    ]
    return torch.tensor(rows, dtype=torch.float32), torch.tensor(chains["probability"].to_list()).unsqueeze(1)


def network(inputs: int, width: int) -> nn.Module:
    """Return a network with one hidden layer and a probability as output."""
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, 1), nn.Sigmoid())
