"""One token of each row through the language model, written out.

With few rows a step of sampling has little arithmetic, and the layers of transformers spend much of it between kernels:
in modules, keyword arguments, and many small operations to each norm and rotation. Here the same is said in fewer calls
(``tests/benchmarks/decoding.py``). The weights are the model's own; adapters are called as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLDecoderLayer
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLDecoderLayer

if TYPE_CHECKING:
    from kvg.backbones.decoding import GroupState

KNOWN_LAYERS = (Qwen2VLDecoderLayer, Qwen2_5_VLDecoderLayer)
Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Layer:
    """The maps of a layer, in the order of their use."""

    before: Map
    query: Map
    key: Map
    value: Map
    out: Map
    between: Map
    gate: Map
    up: Map
    down: Map
    scale: float


class TokenPass:
    """A text model of Qwen2-VL or Qwen2.5-VL, for one token a row whose context a ``GroupState`` holds.

    Args:
        language_model: one for which ``fits`` is true.
    """

    def __init__(self, language_model: Any) -> None:
        self.layers = [_layer(layer) for layer in language_model.layers]
        self.norm = _norm(language_model.norm)
        self.rotary = language_model.rotary_emb
        self.head_dim: int = language_model.layers[0].self_attn.head_dim

    @staticmethod
    def fits(language_model: Any) -> bool:
        """Whether every layer is of a kind that is written out here."""
        config = language_model.config
        known = all(
            type(layer) in KNOWN_LAYERS and not layer.self_attn.sliding_window for layer in language_model.layers
        )
        return known and config.hidden_act == "silu" and config.rope_parameters["rope_type"] == "default"

    def __call__(self, embeds: Tensor, position: Tensor, state: GroupState) -> Tensor:
        """The last hidden states.

        Args:
            embeds: ``[N, hidden]`` of the tokens.
            position: ``[N]`` M-RoPE position of each, the same on all three axes.
            state: is asked by each layer, and takes the tokens' keys and values.

        Returns:
            ``[N, hidden]``.
        """
        angles = position[:, None, None].float() * self.rotary.inv_freq.float()  # [N, 1, D / 2]
        cos, sin = angles.cos(), angles.sin()
        # A head's halves (a, b) turn to (a cos - b sin, b cos + a sin): with halves changed over, one product and sum.
        cos, sin = (torch.cat(halves, -1).to(embeds.dtype) for halves in ((cos, cos), (-sin, sin)))
        half = self.head_dim // 2
        states = embeds
        for number, layer in enumerate(self.layers):
            seen = layer.before(states)
            query, key = layer.query(seen), layer.key(seen)
            both = torch.cat([query, key], -1).view(len(states), -1, self.head_dim)  # [N, heads + groups, D]
            value = layer.value(seen).view(len(states), -1, self.head_dim)
            both = torch.addcmul(both * cos, both.roll(half, -1), sin).to(value.dtype)  # float32 under autocast
            heads = query.shape[-1] // self.head_dim
            states = states + layer.out(
                state.attend(number, both[:, :heads], both[:, heads:], value, layer.scale).flatten(1)
            )
            seen = layer.between(states)
            states = states + layer.down(F.silu(layer.gate(seen)).mul_(layer.up(seen)))
        return self.norm(states)


def _layer(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return _Layer(
        _norm(layer.input_layernorm),
        _linear(attention.q_proj),
        _linear(attention.k_proj),
        _linear(attention.v_proj),
        _linear(attention.o_proj),
        _norm(layer.post_attention_layernorm),
        _linear(mlp.gate_proj),
        _linear(mlp.up_proj),
        _linear(mlp.down_proj),
        attention.scaling,
    )


def _norm(module: Any) -> Map:
    return partial(
        F.rms_norm, normalized_shape=tuple(module.weight.shape), weight=module.weight, eps=module.variance_epsilon
    )


def _linear(module: Any) -> Map:
    """A plain layer without the module's call; an adapter's as it is."""
    return partial(F.linear, weight=module.weight, bias=module.bias) if type(module) is nn.Linear else module
