"""Merges LoRA adapters, as PEFT saves them in a folder of their own, into the weights of their model.

Which layers get an adapter is read from the names of the weights. ``adapter_config.json`` holds a pattern instead, over
the names that parts of the model had when it was written, and training frameworks read such patterns in their own way.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file
from torch import nn

from kvg.backbones.adapter_files import PREFIX, SETTINGS, WEIGHTS
from kvg.backbones.checkpoint_files import fault, reading
from kvg.backbones.lora import LoRASettings
from kvg.backbones.merged_rows import merged_rows, merges_by_rows
from kvg.backbones.stored_weights import StoredWeights
from kvg.backbones.weight_files import current_name, former_name, tensor_shapes

_DOWN: Final = re.compile(r"(.+)\.lora_(?:A\.weight|embedding_A)")


def loads_whole(checkpoint: str | None, lora: LoRASettings | None) -> bool:
    """Whether each process has to load the whole model before its adapters can be merged or made.

    Args:
        checkpoint: folder of adapters that are merged; None for none.
        lora: adapters that are made.
    """
    return bool(lora and lora.needs_weights) or (checkpoint is not None and not merges_by_rows(checkpoint))


def with_adapter(
    model: Any, checkpoint: str | None, stored: StoredWeights | None = None
) -> tuple[Any, StoredWeights | None]:
    """Merges adapters into the weights of a model, and removes them.

    It computes what PEFT computes with the adapters beside the weights. Embeddings and output layer that share their
    weights are untied where the adapters change one of them.

    Args:
        model: that ``adapter_base`` names.
        checkpoint: folder of the adapters; None leaves all as it is.
        stored: files of a model that has been built without weights; None where it has them. Its adapters have to be
            such that ``kvg.backbones.merged_rows.merges_by_rows`` is true.

    Returns:
        The model, and what is left to be read for it, with the adapters merged.

    Raises:
        ConfigError: settings or weights are missing, damaged, no safetensors, or of another model.
    """
    if checkpoint is None:
        return model, stored
    ranks = _ranks(tensor_shapes(checkpoint, WEIGHTS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # settings of a newer PEFT; what does not fit is reported below
        with reading(checkpoint, f"its {SETTINGS} cannot be used"):
            config = LoraConfig.from_pretrained(checkpoint)
            _target_stored_layers(checkpoint, config, model, ranks)
        if stored is not None:
            return model, merged_rows(checkpoint, config, stored)
        with reading(checkpoint, "cannot be put on its model"):
            saved = load_file(Path(checkpoint) / WEIGHTS)
            weights = {PREFIX + _current(name): value for name, value in saved.items()}
            adapted = PeftModel(model, config)
            report = set_peft_model_state_dict(adapted, weights)
            missing, unexpected = _missing(adapted, report.missing_keys), list(report.unexpected_keys)
            if missing or unexpected:
                first = (missing + unexpected)[0]
                remedy = f"{len(missing)} weights are missing and {len(unexpected)} fit no layer ({first}, ...)"
                raise fault(checkpoint, f"{remedy}; give the model that the adapters were trained on")
            untied = _untie(model)
            merged = adapted.merge_and_unload().requires_grad_(True)  # adapters had frozen all else
    if untied:
        _tie_where_equal(merged)
    return merged, None


def _missing(adapted: nn.Module, names: Sequence[str]) -> list[str]:
    """Parameters of adapters among those not loaded, without what shares the tensor of another that was."""
    parameters = dict(adapted.named_parameters(remove_duplicate=False))
    loaded = {id(parameter) for name, parameter in parameters.items() if name not in set(names)}
    added = [name for name in names if re.search(r"lora_|modules_to_save\.|trainable_tokens_", name)]
    return [name for name in added if name not in parameters or id(parameters[name]) not in loaded]


def _ranks(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Ranks of the adapters by the layers that they belong to, as these are called in the file."""
    matches = ((_DOWN.fullmatch(name.removeprefix(PREFIX)), shape) for name, shape in shapes.items())
    return {match[1]: shape[0] for match, shape in matches if match and shape}


def _target_stored_layers(checkpoint: str, config: Any, model: nn.Module, ranks: Mapping[str, int]) -> None:
    """Makes a config name the layers that have weights, each with its rank and scale.

    Args:
        checkpoint: for messages.
        config: of the adapters; changed in place.
        model: that they are put on.
        ranks: see ``_ranks``.

    Raises:
        ConfigError: the layers are not those of the model, or their ranks not those of the config.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Embedding)}
    current = {name: _current(f"{name}.")[:-1] for name in ranks}
    if unknown := [name for name in ranks if current[name] not in layers]:
        remedy = f"has weights for {len(unknown)} layers that its model lacks ({unknown[0]}, ...)"
        raise fault(checkpoint, f"{remedy}; give the model that the adapters were trained on")
    old = any(current[name] != name for name in ranks)
    missing = [
        name
        for name, module in layers.items()
        if isinstance(module, nn.Linear)
        and name not in current.values()
        and config.target_modules != "all-linear"
        and check_target_module_exists(config, former_name(name) if old else name)
    ]
    if missing:
        remedy = f"lacks weights of {len(missing)} layers that its {SETTINGS} targets ({missing[0]}, ...)"
        raise fault(checkpoint, f"{remedy}; copy its files anew")
    scales = {}
    for name, rank in ranks.items():
        stated_rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern, name), config.r)
        if rank != stated_rank:
            remedy = f"says rank {stated_rank} of {name}, and its weights have {rank}; copy its files anew"
            raise fault(checkpoint, f"its {SETTINGS} {remedy}")
        scales[name] = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern, name), config.lora_alpha)
    config.target_modules = set(current.values())
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    config.rank_pattern = {re.escape(current[name]): rank for name, rank in ranks.items()}
    config.alpha_pattern = {re.escape(current[name]): scale for name, scale in scales.items()}
    if config.modules_to_save:
        config.modules_to_save = [_current(f"{name}.")[:-1] for name in config.modules_to_save]


def _current(name: str) -> str:
    return current_name(name.removeprefix(PREFIX))


def _embeddings_and_head(model: Any) -> list[Any]:
    """Embeddings and output layer without what PEFT has put around them."""
    pair = [model.get_input_embeddings(), model.get_output_embeddings()]
    for place, module in enumerate(pair):
        while inner := getattr(module, "base_layer", getattr(module, "original_module", None)):
            module = pair[place] = inner
    return pair


def _untie(model: Any) -> bool:
    """Gives the output layer weights of its own where it shares those of the embeddings and one of them is adapted."""
    embeddings, head = _embeddings_and_head(model)
    untouched = embeddings is model.get_input_embeddings() and head is model.get_output_embeddings()
    if untouched or head.weight is not embeddings.weight:
        return False
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    return True


def _tie_where_equal(model: Any) -> None:
    """Shares the weights again where both have been changed alike; says of a model whether it shares them."""
    embeddings, head = _embeddings_and_head(model)
    model.config.tie_word_embeddings = head.weight.equal(embeddings.weight)
    if model.config.tie_word_embeddings:
        head.weight = embeddings.weight
