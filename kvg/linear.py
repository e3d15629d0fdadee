"""Matrix products of float32 on a CPU by the faster of two libraries, in the forward and the backward pass.

``torch.nn.functional.linear`` calls MKL there. On processors that are not Intel's, MKL leaves AVX-512 unused, and the
same product takes twice as long as by oneDNN, which torch holds as well. On Intel's, MKL is the faster one
(``tests/benchmarks/linear.py``). Results are the same up to the order in which products are added. The choice follows
from the processor alone, so that a run that is resumed on the same machine adds in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LEAST = 2**20  # multiplications; below this the call of oneDNN takes longer than it saves


def _available() -> bool:
    return bool(torch.backends.mkldnn.is_available()) and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]


@cache
def is_intel() -> bool:
    """Whether the processor is Intel's, as far as the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        text = os.environ.get("PROCESSOR_IDENTIFIER", "")  # Windows
    return "GenuineIntel" in text


def prefers_onednn() -> bool:
    """Whether oneDNN multiplies float32 faster here than MKL."""
    return not is_intel() and _available()


def product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right.T``, without a gradient.

    Args:
        left: ``[..., K]``.
        right: ``[N, K]``.

    Returns:
        ``[..., N]``.
    """
    if not _fits(left, right):
        return left @ right.T
    out: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
    return out


def linear(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As ``torch.nn.functional.linear``.

    Args:
        states: ``[..., K]``.
        weight: ``[N, K]``.
        bias: ``[N]``.

    Returns:
        ``[..., N]``.
    """
    if not _fits(states, weight) or torch.is_autocast_enabled("cpu"):
        return F.linear(states, weight, bias)
    if torch.is_grad_enabled() and (states.requires_grad or weight.requires_grad):
        out: Tensor = _Linear.apply(states, weight, bias)  # type: ignore[no-untyped-call]
    else:
        out = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
    return out


def packed(weight: Tensor, bias: Tensor | None, rows: int) -> Callable[[Tensor], Tensor]:
    """A linear layer with a copy of its weight that lies as the product reads it fastest; without a gradient.

    Args:
        weight: ``[N, K]``, on a CPU; float32 or bfloat16.
        bias: ``[N]``.
        rows: of the inputs, about.

    Returns:
        Maps ``[rows, K]`` of the weight's type to ``[rows, N]``.
    """
    if weight.dtype == torch.float32 and not prefers_onednn():
        turned = weight.T.contiguous()
        return (lambda states: states @ turned) if bias is None else (lambda states: torch.addmm(bias, states, turned))
    if not _available() or weight.dtype not in (torch.float32, torch.bfloat16):
        return partial(F.linear, weight=weight, bias=bias)
    copy = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
    return lambda states: torch.ops.mkldnn._linear_pointwise(states, copy, bias, "none", [], "")


class Linear(nn.Linear):
    """A linear layer that computes by ``linear``."""

    def forward(self, states: Tensor) -> Tensor:
        """See ``torch.nn.Linear.forward``."""
        return linear(states, self.weight, self.bias)


def use_linear(model: nn.Module) -> None:
    """Makes a ``Linear`` of each ``torch.nn.Linear`` of a model, in place; weights and their names stay.

    Nothing changes where MKL is faster.
    """
    if not prefers_onednn():
        return
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear


def _fits(left: Tensor, right: Tensor) -> bool:
    return (
        left.dtype == right.dtype == torch.float32
        and left.device.type == right.device.type == "cpu"
        and left.numel() * len(right) >= LEAST
        and type(left) in _PLAIN
        and type(right) in _PLAIN
        and prefers_onednn()
    )


_PLAIN = (Tensor, nn.Parameter)  # tensors of other classes (sharded, fake, of vmap) bring operations of their own


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(states, weight)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        states, weight = ctx.saved_tensors
        of_states, of_weight, of_bias = ctx.needs_input_grad
        rows = grad.flatten(0, -2)
        return (
            product(grad, weight.T) if of_states else None,
            product(rows.T, states.flatten(0, -2).T) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )
