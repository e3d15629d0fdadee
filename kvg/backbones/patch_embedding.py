"""The first layer of a vision tower as what it is: a linear map of patches."""

from __future__ import annotations

from types import MethodType
from typing import Any

from torch import Tensor
from torch.nn import functional as F


def install(visual: Any) -> None:
    """Lets a Qwen tower take its patches through a matrix product.

    Transformers has a convolution there whose stride is its size, which is a product of the flat patches and the flat
    weight; kernels for convolutions take several times as long for it. Weights and their names stay.
    """
    visual.patch_embed.forward = MethodType(_forward, visual.patch_embed)


def _forward(module: Any, patches: Tensor) -> Tensor:
    """``[P, D]`` to ``[P, width]``."""
    return F.linear(patches.to(module.proj.weight.dtype), module.proj.weight.flatten(1), module.proj.bias)
