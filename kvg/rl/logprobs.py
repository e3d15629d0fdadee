"""Log-probabilities of given tokens, in chunks, so that ``[tokens, vocabulary]`` never exists as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kvg.devices import device_kind
from kvg.linear import product

CHUNK_CPU, CHUNK_GPU = 2**22, 2**26  # logits that exist at a time: few fit into caches, many keep a GPU busy


def token_logprobs(
    weight: Tensor,
    hidden: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    chunk: int | None = None,
    entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """Scores tokens.

    Args:
        weight: ``[V, H]`` of the output projection.
        hidden: ``[M, H]``, the states that predict the targets.
        targets: ``[M]`` token ids.
        temperature: that they were sampled at; logits are divided by it.
        chunk: logits that exist at a time, of all tokens and a part of the vocabulary; where there are several parts,
            they are computed again in the backward pass. None leaves it to the device.
        entropy_gradient: whether a gradient flows through the entropies.

    Returns:
        Log-probabilities ``[M]`` and entropies ``[M]``, in nats, float32.
    """
    kind = weight.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        weight, hidden = weight.to(dtype), hidden.to(dtype)
    chunk = chunk or (CHUNK_CPU if device_kind(weight) == "cpu" else CHUNK_GPU)
    words = max(1, chunk // max(1, len(targets)))
    scores, entropies = _Scores.apply(weight, hidden, targets, temperature, words)  # type: ignore[no-untyped-call]
    return scores, entropies if entropy_gradient else entropies.detach()


class _Scores(torch.autograd.Function):
    """The head, its log-softmax and its entropy in one.

    Parts of the vocabulary are taken in turns, as keys are in flash attention (arXiv 2205.14135), rather than parts of
    the tokens: then each row of the weight is read once, and its gradient, as large as the weight, is written once.
    With p the probabilities of a token and H its entropy, d log p[target] = (one-hot - p) d logits, and
    d H = -p (log p + H) d logits.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, hidden: Tensor, targets: Tensor, temperature: float, words: int
    ) -> tuple[Tensor, Tensor]:
        target_logits, top, total, moment = (hidden.new_zeros(len(targets), dtype=torch.float32) for _ in range(4))
        for part in _parts(len(weight), words):
            logits = _logits(weight[part], hidden, temperature)
            inside, place = _places(targets, part)
            target_logits = torch.where(inside, logits.gather(-1, place[:, None])[:, 0], target_logits)
            high = logits.amax(-1)
            high, top = (torch.maximum(high, top), top) if part.start else (high, high)
            shrink = (top - high).exp()
            exponentials = logits.sub_(high[:, None]).exp()
            # The sums of e^z and of z e^z over the words so far, z counted from the highest logit so far.
            moment = shrink * (moment + (top - high) * total) + torch.einsum("mv,mv->m", exponentials, logits)
            total = shrink * total + exponentials.sum(-1)
            top = high
        norm = total.log()
        entropies = norm - moment / total
        ctx.kept = logits if words >= len(weight) and any(ctx.needs_input_grad) else None
        ctx.save_for_backward(weight, hidden, targets, norm if words >= len(weight) else norm + top, entropies)
        ctx.temperature, ctx.words = temperature, words
        ctx.set_materialize_grads(False)
        return target_logits - top - norm, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> Any:  # type: ignore[override]
        weight, hidden, targets, norm, entropies = ctx.saved_tensors
        wanted = torch.zeros_like(norm) if grads[0] is None else grads[0] / ctx.temperature
        spread = None if grads[1] is None else (grads[1] / ctx.temperature)[:, None]
        grad_weight = torch.empty_like(weight) if ctx.needs_input_grad[0] else None
        grad_hidden = torch.zeros_like(hidden, dtype=torch.float32)
        for part in _parts(len(weight), ctx.words):
            logits = _logits(weight[part], hidden, ctx.temperature) if ctx.kept is None else ctx.kept.clone()
            logprobs = logits.sub_(norm[:, None])
            if spread is None:
                grad = logprobs.exp_().mul_(-wanted[:, None])
            else:
                grad = logprobs.exp().neg_()
                grad.mul_(logprobs.add_(entropies[:, None]).mul_(spread).add_(wanted[:, None]))
            inside, place = _places(targets, part)
            grad.scatter_add_(-1, place[:, None], (wanted * inside)[:, None])
            grad = grad.to(weight.dtype)
            grad_hidden += product(grad, weight[part].T)
            if grad_weight is not None:
                grad_weight[part] = product(grad.T, hidden.T)
        return grad_weight, grad_hidden.to(hidden.dtype), None, None, None


def _parts(num: int, words: int) -> Iterator[slice]:
    return (slice(start, min(num, start + words)) for start in range(0, num, words))


def _places(targets: Tensor, part: slice) -> tuple[Tensor, Tensor]:
    """Which targets are words of this part, and where in it they are; 0 for the others."""
    inside = (targets >= part.start) & (targets < part.stop)
    return inside, (targets - part.start).where(inside, 0)


def _logits(weight: Tensor, hidden: Tensor, temperature: float) -> Tensor:
    logits = product(hidden, weight).float()
    return logits if temperature == 1 else logits.div_(temperature)
