"""Which parts of a model are trained: vision tower, projector, and the language model or adapters on it."""

from __future__ import annotations

from typing import Any

from kvg.backbones.family import Family
from kvg.backbones.four_bit import keep_in_four_bits
from kvg.backbones.lora import LoRASettings, add_lora, is_adapter
from kvg.errors import ConfigError
from kvg.ranges import check_whole


def check_parts(freeze_vision: bool, freeze_projector: bool, feature_cache_mb: int) -> None:
    """Refuses settings that would do nothing together.

    Raises:
        ConfigError: visual tokens are to be kept although training changes them, or the memory for them is no size.
    """
    check_whole("backbone.feature_cache_mb", feature_cache_mb, 0)
    if feature_cache_mb and not (freeze_vision and freeze_projector):
        trained = "vision tower" if not freeze_vision else "projector"
        remedy = f"{feature_cache_mb} keeps visual tokens, which change while the {trained} is trained; set it to 0"
        raise ConfigError("backbone.feature_cache_mb", f"{remedy}, or freeze vision and projector")


def set_trained_parts(
    family: Family,
    model: Any,
    freeze_vision: bool,
    freeze_projector: bool,
    lora: LoRASettings | None,
    freeze_language: bool = False,
    freeze_embeddings: bool = False,
) -> None:
    """Freezes what is not trained, in place; puts in adapters.

    Adapters take the place of the language model's own weights, and of nothing else: vision tower and projector are
    trained whole beside them where they are not frozen.

    Args:
        family: of the model.
        model: the Hugging Face model.
        freeze_vision: leave the vision tower as it is.
        freeze_projector: leave the projector as it is.
        lora: adapters on the language model; None trains it whole.
        freeze_language: leave the language model as it is, embeddings and output layer, too.
        freeze_embeddings: leave embeddings and output layer as they are.

    Raises:
        ConfigError: the adapters fit no layer, or would be frozen.
    """
    if lora is not None:
        if freeze_language:
            raise ConfigError(
                "backbone.freeze_language", "leaves nothing for the adapters; set it to false or lora to null"
            )
        if lora.bits == 4:
            keep_in_four_bits(model, family.language(model))
        add_lora(model, family.language(model), lora)
    elif freeze_language or freeze_embeddings:
        frozen = [*_embeddings(model), *([family.language(model)] if freeze_language else [])]
        for module in frozen:
            module.requires_grad_(False)
    for parameter in family.tower(model).parameters():
        parameter.requires_grad_(not freeze_vision)
    for module in family.projector(model):  # often inside the tower
        module.requires_grad_(not freeze_projector)


def part_of(family: Family, model: Any) -> dict[str, str]:
    """The part that each parameter belongs to, by its name: vision, merger, embeddings, language or adapters.

    Embeddings and output layer that share their weights are one parameter.
    """
    places = [
        ("merger", family.projector(model)), ("vision", [family.tower(model)]), ("embeddings", _embeddings(model)),
    ]  # fmt: skip
    parts: dict[int, str] = {}
    for part, modules in places:
        for module in modules:
            for parameter in module.parameters():
                parts.setdefault(id(parameter), part)
    named = model.named_parameters()
    return {name: "adapters" if is_adapter(name) else parts.get(id(p), "language") for name, p in named}


def _embeddings(model: Any) -> list[Any]:
    return [model.get_input_embeddings(), model.get_output_embeddings()]


def recompute_activations(model: Any) -> None:
    """Has activations recomputed in the backward pass instead of kept."""
    # The new name of the method came after transformers 5.17.
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable({"use_reentrant": False})
    model.enable_input_require_grads()
