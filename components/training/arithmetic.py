"""What a training computed with, in words, for model cards."""

from __future__ import annotations

import torch


def arithmetic(device: str | torch.device) -> str:
    """Return what `fit` computes with on a device, such as "float32 on the CPU"."""
    device = torch.device(device)
    if device.type == "cuda":
        return f"bfloat16 autocast on one {torch.cuda.get_device_name(device)}"
    return f"float32 on the {device.type.upper()}"
