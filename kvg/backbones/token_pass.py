"""Tokens of sampling through the language model, written out: one of each row, or several.

With few rows a step of sampling has little arithmetic: it reads every weight once for each token, and the layers of
transformers spend the rest between kernels, in modules, keyword arguments, and many small operations to each norm and
rotation. Here the same takes fewer calls, on a CPU with copies of the weights that lie as oneDNN reads them best,
adapters merged (``tests/benchmarks/decoding.py``). The copies last for one batch of completions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kvg.backbones.group_state import GroupState
from kvg.backbones.language import LanguageModel
from kvg.backbones.lora import layer_weight
from kvg.devices import device_kind
from kvg.linear import packed

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Layer:
    """The maps of a layer, in the order of their use."""

    before: Map
    attention_inputs: Map  # queries, keys and values, side by side
    norm_heads: Map | None  # of queries and keys [N, heads + groups, D], where the model has such norms
    out: Map
    between: Map
    gate_and_up: Map  # side by side
    down: Map
    groups: int  # of heads, each with one key and value
    scale: float


class TokenPass:
    """A text model and its head, for tokens whose context a ``GroupState`` holds.

    Args:
        language: one for which ``fits`` is true.
        rows: at a time, about.
    """

    def __init__(self, language: LanguageModel, rows: int) -> None:
        model, head = language.text_model, language.head
        linear = (
            _copied(rows) if device_kind(next(head.parameters())) == "cpu" else _as_they_are
        )  # memory is dear on a GPU
        self.layers = [_layer(layer, linear) for layer in model.layers]
        self.norm = _norm(model.norm)
        self.head = linear(head)
        self.rotary = model.rotary_emb
        self.head_dim: int = model.layers[0].self_attn.head_dim

    @staticmethod
    def fits(language: LanguageModel) -> bool:
        """Whether every layer is of a kind that is written out here."""
        model, kinds = language.text_model, language.family.plain_layers
        config = model.config
        known = all(
            type(layer) in kinds and not getattr(layer.self_attn, "sliding_window", None) for layer in model.layers
        )
        return known and config.hidden_act == "silu" and config.rope_parameters["rope_type"] == "default"

    def __call__(self, embeds: Tensor, position: Tensor, state: GroupState) -> Tensor:
        """The logits after the tokens.

        Args:
            embeds: ``[M, hidden]`` of the tokens.
            position: ``[M]`` of each, the same on all axes.
            state: holds the context of each layer, and takes the tokens' keys and values.

        Returns:
            ``[M, V]``.
        """
        angles = position[:, None, None].float() * self.rotary.inv_freq.float()  # [N, 1, D / 2]
        cos, sin = angles.cos(), angles.sin()
        # A head's halves (a, b) turn to (a cos - b sin, b cos + a sin): with halves changed over, one product and sum.
        cos, sin = (torch.cat(halves, -1).to(embeds.dtype) for halves in ((cos, cos), (-sin, sin)))
        half = self.head_dim // 2
        states = embeds
        for number, layer in enumerate(self.layers):
            heads = layer.attention_inputs(layer.before(states)).view(len(states), -1, self.head_dim)
            both, value = heads[:, : -layer.groups], heads[:, -layer.groups :]
            if layer.norm_heads is not None:
                both = layer.norm_heads(both)
            both = torch.addcmul(both * cos, both.roll(half, -1), sin).to(value.dtype)  # float32 under autocast
            query, key = both[:, : -layer.groups], both[:, -layer.groups :]
            states = states + layer.out(state.attend(number, query, key, value, layer.scale).flatten(1))
            gate, up = layer.gate_and_up(layer.between(states)).chunk(2, -1)
            states = states + layer.down(F.silu(gate).mul_(up))
        return self.head(self.norm(states))


def _layer(layer: Any, linear: Callable[..., Map]) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return _Layer(
        _norm(layer.input_layernorm),
        linear(attention.q_proj, attention.k_proj, attention.v_proj),
        _norm_heads(attention),
        linear(attention.o_proj),
        _norm(layer.post_attention_layernorm),
        linear(mlp.gate_proj, mlp.up_proj),
        linear(mlp.down_proj),
        attention.k_proj.out_features // attention.head_dim,
        attention.scaling,
    )


def _norm(module: Any) -> Map:
    return partial(
        F.rms_norm, normalized_shape=tuple(module.weight.shape), weight=module.weight, eps=module.variance_epsilon
    )


def _norm_heads(attention: Any) -> Map | None:
    """RMS norms of each query and each key, for models that have them."""
    query, key = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
    if query is None or key is None:
        return None
    with torch.no_grad():  # one weight a head, queries first
        counts = [layer.out_features // attention.head_dim for layer in (attention.q_proj, attention.k_proj)]
        weight = torch.cat([norm.weight.expand(num, -1) for norm, num in zip((query, key), counts, strict=True)])
    return lambda heads: F.rms_norm(heads, heads.shape[-1:], eps=query.variance_epsilon) * weight


def _as_they_are(*modules: Any) -> Map:
    """Linear layers of one input, with or without adapters, their outputs side by side."""
    return modules[0] if len(modules) == 1 else lambda states: torch.cat([m(states) for m in modules], -1)


def _copied(rows: int) -> Callable[..., Map]:
    """The same from copies of their weights that lie as a product reads them fastest."""

    @torch.no_grad()
    def copy(*modules: Any) -> Map:
        weights = [layer_weight(module) for module in modules]
        biases: list[Any] = [getattr(getattr(module, "base_layer", module), "bias", None) for module in modules]
        weight, bias = torch.cat(weights), None if biases[0] is None else torch.cat(biases)
        if not torch.is_autocast_enabled("cpu"):
            return packed(weight, bias, rows)
        dtype = torch.get_autocast_dtype("cpu")
        apply = packed(weight.to(dtype), None if bias is None else bias.to(dtype), rows)
        return lambda states: apply(states.to(dtype))

    return copy
