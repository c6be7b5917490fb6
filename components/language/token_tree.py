"""Next-token distributions behind many token sequences from one pass of a causal model.

The distinct beginnings of the sequences form a tree. Its tokens are read as one sequence in which each attends to its
own ancestors only and stands at its depth, so every row equals that of a pass over its sequence alone. The encodings of
all beginnings of one text share most of their tokens: their tree has little more than twice as many as the text.

    start - the - re - fore         "there", "the" + "ref", "the" + "re" + "fore", ... in one pass
            `-- ref
     `--- there

Letters: S tokens of the tree with the start token, V tokens of the model.

Source: Miao et al. 2023, "SpecInfer: Accelerating Large Language Model Serving with Tree-based Speculative Inference
and Verification", tree attention.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from components.errors import TesseraError
from components.language.causal_lm import CausalLM, ContextOverflow


class UnknownSequence(TesseraError):
    """A sequence was asked for that begins none of those a tree was made of."""


class TokenTree:
    """Rows of a model behind every beginning of some sequences.

    Args:
        model: The model.
        sequences: Token sequences without the start token.

    Attributes:
        size: S.

    Raises:
        ContextOverflow: A sequence is longer than the model's context.
    """

    @torch.no_grad()
    def __init__(self, model: CausalLM, sequences: Iterable[Sequence[int]]) -> None:
        self._children: list[dict[int, int]] = [{}]
        tokens, parents, depths = [model.start_token], [0], [0]
        for sequence in sequences:
            node = 0
            for token in sequence:
                if token not in self._children[node]:
                    self._children[node][token] = len(tokens)
                    self._children.append({})
                    tokens.append(token)
                    parents.append(node)
                    depths.append(depths[node] + 1)
                node = self._children[node][token]
        self.size = len(tokens)
        if max(depths) >= model.config.context:
            raise ContextOverflow(
                f"A sequence of {max(depths)} tokens and the start token, but the model has {model.config.context} "
                "positions; shorten the text."
            )
        ancestors = np.eye(self.size, dtype=bool)
        for node in range(1, self.size):
            ancestors[node] |= ancestors[parents[node]]
        given = torch.tensor([tokens], device=model.device)
        places = torch.tensor(depths, device=model.device)
        mask = torch.from_numpy(ancestors).to(model.device)
        self._logits = model(given, places=places, mask=mask)[0]  # [S, V]

    def next(self, tokens: Sequence[int]) -> Tensor:
        """Return ln P(next token | tokens), (V,) float64.

        Raises:
            UnknownSequence: The tree has no such beginning.
        """
        node = 0
        for place, token in enumerate(tokens):
            if token not in self._children[node]:
                raise UnknownSequence(
                    f"No sequence of the tree goes on with token {token} behind its first {place} tokens; make the "
                    "tree of everything that will be asked for."
                )
            node = self._children[node][token]
        return self._logits[node].double().log_softmax(-1)
