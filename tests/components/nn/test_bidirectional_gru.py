"""The two-way recurrent layers against torch's packed ones with the same weights."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from components.nn.bidirectional_gru import BidirectionalGRU


def test_states_are_those_of_a_packed_bidirectional_gru():
    torch.manual_seed(0)
    ours, peer = BidirectionalGRU(5, 4, 2), nn.GRU(5, 4, 2, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for layer in range(2):
            for module, suffix in ((ours.forwards[layer], ""), (ours.backwards[layer], "_reverse")):
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                    getattr(peer, f"{name}_l{layer}{suffix}").copy_(getattr(module, f"{name}_l0"))
    sequences, lengths = torch.randn(3, 7, 5), torch.tensor([7, 2, 5])
    packed = peer(pack_padded_sequence(sequences, lengths, batch_first=True, enforce_sorted=False))[0]
    expected = pad_packed_sequence(packed, batch_first=True)[0]
    torch.testing.assert_close(ours(sequences, lengths), expected)
