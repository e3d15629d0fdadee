"""Supervised attention: one head of a language model learns to look from words about an object to its visual tokens.

Localization is learnt long before selection. With this aid a small model learns to select within a few hundred steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb


@contextmanager
def layer_inputs(layer: nn.Module) -> Iterator[list[tuple[Tensor, tuple[Tensor, Tensor]]]]:
    """Collects the states and the rotary embeddings that a decoder layer is called with in this block."""
    caught: list[tuple[Tensor, tuple[Tensor, Tensor]]] = []

    def catch(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        caught.append((args[0] if args else kwargs["hidden_states"], kwargs["position_embeddings"]))

    hook = layer.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        yield caught
    finally:
        hook.remove()


def first_head_scores(layer: Any, states: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Attention scores of a layer's first head, before mask and softmax.

    Args:
        layer: pre-norm decoder layer with rotary embeddings on the halves of a head (``Family.plain_layers``).
        states: ``[B, L, hidden]``, the layer's input.
        rotary: cosines and sines of its positions.

    Returns:
        ``[B, L, L]``: of each query (second axis) to each key, float32.
    """
    normed, width = layer.input_layernorm(states), layer.self_attn.head_dim
    query, key = (projection(normed)[..., :width] for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj))
    query, key = apply_rotary_pos_emb(query[:, None], key[:, None], *rotary)
    scores: Tensor = (query[:, 0] @ key[:, 0].transpose(1, 2)).float() / width**0.5
    return scores


def attention_share(scores: Tensor, visible: Tensor, wanted: Tensor) -> Tensor:
    """Share of each query's attention that lies on its wanted keys.

    Args:
        scores: ``[M, L]``.
        visible: ``[M, L]`` bool, keys that the query may attend to.
        wanted: ``[M, L]`` bool.

    Returns:
        ``[M]``, 0-1.

    >>> visible, wanted = torch.tensor([[True, True, True, False]]), torch.tensor([[True, False, False, False]])
    >>> attention_share(torch.zeros(1, 4), visible, wanted)
    tensor([0.3333])
    """
    return (scores.masked_fill(~visible, -torch.inf).softmax(-1) * wanted).sum(1)


def guidance_loss(shares: Tensor) -> Tensor:
    """Mean negative log of the shares, in nats; finite where a share is 0."""
    return -shares.clamp(min=1e-9).log().mean()
