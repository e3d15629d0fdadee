"""Reads Hugging Face folders and hub names, every fault named: settings, tokenizer and pictures before any weight.

All of it comes from outside: no code from a checkpoint is run, and whatever its files hold, nothing is raised but a
``ConfigError``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase
from transformers.image_processing_base import ImageProcessingMixin

from kvg.backbones import picture_settings
from kvg.backbones.adapter_files import check_base
from kvg.backbones.base_weights import check_base_weights
from kvg.backbones.chat_template import check_chat_template
from kvg.backbones.checkpoint_files import fault, read_object, reading
from kvg.backbones.family import Family
from kvg.backbones.picture_settings import PictureSettings
from kvg.backbones.stored_weights import StoredWeights, build_deferred
from kvg.backbones.weight_files import check_layers, check_names, check_shapes, weight_files
from kvg.errors import ConfigError
from kvg.ranges import check_whole
from kvg.records import excerpt

CONFIG: Final = "config.json"
MAX_LAYERS: Final = 1000  # the deepest published model has a fifth of it
TOKENIZER: Final = ("tokenizer.json", "tokenizer_config.json")
SETTINGS: Final = (CONFIG, TOKENIZER[1], picture_settings.FILE, "processor_config.json")  # that may name code


@dataclass(frozen=True)
class Description:
    """All of a checkpoint but its weights.

    Attributes:
        tokenizer: with a chat template.
        picture: how pictures are cut.
        config: of the model; None where it is built here and not read.
    """

    tokenizer: PreTrainedTokenizerBase
    picture: PictureSettings
    config: Any = None


def describe_checkpoint(family: Family, checkpoint: str, adapter: str | None = None) -> Description:
    """Reads all but the weights.

    Args:
        family: of the model.
        checkpoint: a folder or a hub name.
        adapter: folder of adapters for it, whose own tokenizer and picture settings count where it has them: these
            are what the adapters were trained with.

    Raises:
        ConfigError: it is not there, not whole, or its files do not belong together.
    """
    config = read_config(checkpoint)
    if adapter:
        _check_own_code(adapter)
        if Path(checkpoint).is_dir():
            check_base(adapter, weight_files(checkpoint), checkpoint)
        check_base_weights(adapter, checkpoint)
    place = Path(adapter) if adapter else None
    own = place is not None and (place / TOKENIZER[1]).is_file()
    tokenizer = _tokenizer(adapter if adapter and own else checkpoint, config, family)
    own = place is not None and (place / picture_settings.FILE).is_file()
    picture = _picture_settings(adapter if adapter and own else checkpoint, family, config)
    if misfit := family.check_pictures(picture, config):
        remedy = f"does not fit its model: {misfit}; correct one of them"
        raise fault(checkpoint, f"its {picture_settings.FILE} {remedy}")
    return Description(tokenizer, picture, config)


def load_model(hf_class: type[Any], checkpoint: str, config: Any, dtype: str, attn: str) -> Any:
    """The model of a checkpoint that has been described.

    Raises:
        ConfigError: its weights are missing, damaged, no safetensors, or do not fit its settings.
    """
    if Path(checkpoint).is_dir():
        _check_files(hf_class, checkpoint, config)
    with reading(checkpoint, "its weights cannot be loaded"):
        model, report = hf_class.from_pretrained(
            checkpoint,
            dtype=dtype,
            attn_implementation=attn,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported below with their names, instead of raised without
            output_loading_info=True,
        )
    misfits = sorted(report["missing_keys"]) + sorted(key[0] for key in report["mismatched_keys"])
    if misfits:
        remedy = f"{len(misfits)} weights are missing or do not fit its config.json ({misfits[0]}, ...)"
        raise fault(checkpoint, f"{remedy}; give a folder whose files belong together")
    _check_ends(checkpoint, model)
    return model


def load_deferred(
    hf_class: type[Any], checkpoint: str, config: Any, dtype: str, attn: str
) -> tuple[Any, StoredWeights | None]:
    """The model of a checkpoint without its weights, and where these are.

    Returns:
        The whole model and None where transformers has to convert its files.

    Raises:
        ConfigError: see ``load_model``.
    """
    folder = checkpoint
    if not Path(checkpoint).is_dir():
        with reading(checkpoint, "its files cannot be fetched"):
            folder = snapshot_download(checkpoint, allow_patterns=["*.safetensors", "*.json"])
    _check_files(hf_class, folder, config)
    built = build_deferred(hf_class, folder, config, dtype, attn)
    if built is None:
        return load_model(hf_class, checkpoint, config, dtype, attn), None
    _check_ends(checkpoint, built[0])
    return built


def _check_files(hf_class: type[Any], checkpoint: str, config: Any) -> None:
    files = weight_files(checkpoint)
    check_layers(checkpoint, files, config)
    with reading(checkpoint, f"its {CONFIG} describes no model that can be built"), torch.device("meta"):
        skeleton = hf_class(copy.deepcopy(config))
    shapes = {name: tuple(value.shape) for name, value in skeleton.state_dict().items()}
    check_shapes(checkpoint, files, shapes)
    check_names(checkpoint, files, shapes, skeleton.all_tied_weights_keys)


def _check_ends(checkpoint: str, model: Any) -> None:
    ends = model.generation_config.eos_token_id
    for token in ends if isinstance(ends, list) else [] if ends is None else [ends]:
        if type(token) is not int:
            raise fault(
                checkpoint, f"its generation_config.json: eos_token_id {excerpt(token)} is no token; correct it"
            )


def read_config(checkpoint: str) -> Any:
    """The settings of a model in a folder or on the hub.

    Raises:
        ConfigError: there are none, or they cannot be read.
    """
    folder = Path(checkpoint)
    if folder.is_dir() and not (folder / CONFIG).is_file():
        raise fault(checkpoint, f"has no {CONFIG}; give a Hugging Face folder")
    if folder.is_dir():
        content = read_object(checkpoint, CONFIG)
        _check_own_code(checkpoint)
        _check_depth(checkpoint, content)
        kind = content.get("model_type")
        if not isinstance(kind, str):
            raise fault(checkpoint, f"its {CONFIG}: model_type is {excerpt(kind)}; give the folder of a whole model")
    elif folder.exists():
        raise fault(checkpoint, "is a file; give the folder of a model, such as RUN/export")
    elif checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") != 1:
        raise fault(checkpoint, "is no such folder, and no name on the hub; correct the path")
    elif folder.parent.is_dir():  # a path that is mistyped should not be looked up on the hub
        remedy = f"is no such folder, and '{folder.parent}' is a folder here, so it is not taken for a name on the hub"
        raise fault(checkpoint, f"{remedy}; correct the path")
    with reading(checkpoint, f"its {CONFIG} cannot be read"):
        config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
    _refuse_code(checkpoint, CONFIG, getattr(config, "auto_map", None))
    return config


def _check_own_code(folder: str) -> None:
    """Refuses a folder that wants code of its own to be run, even where transformers could do without."""
    for name in SETTINGS:
        if (Path(folder) / name).is_file():
            _refuse_code(folder, name, read_object(folder, name).get("auto_map"))


def _refuse_code(checkpoint: str, name: str, auto_map: Any) -> None:
    if auto_map:
        remedy = f"its {name} wants code of its own to be run (auto_map: {excerpt(auto_map)}), which is not done here"
        form = "give the checkpoint in the form of transformers itself (often named -hf)"
        raise fault(checkpoint, f"{remedy}; {form}, or remove auto_map where it has that form")


def _check_depth(checkpoint: str, content: Mapping[str, Any]) -> None:
    """Refuses numbers of layers that no model has, for which transformers would fill the memory with their names."""
    for part in (content, content.get("text_config"), content.get("vision_config")):
        for name in ("num_hidden_layers", "depth"):
            if isinstance(part, Mapping) and part.get(name) is not None:
                try:
                    check_whole(name, part[name], 1, MAX_LAYERS)
                except ConfigError as error:
                    raise fault(checkpoint, f"its {CONFIG}: {error}; copy it anew") from error


def _tokenizer(checkpoint: str, config: Any, family: Family) -> PreTrainedTokenizerBase:
    with reading(checkpoint, "its tokenizer cannot be read"):
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        image, end = (tokenizer.convert_tokens_to_ids(token) for token in (family.image_token, family.turn_end))
        highest = max(tokenizer.get_vocab().values(), default=0)
        written = {token: tokenizer.encode(token, add_special_tokens=False) for token in family.special_tokens()}
    # Where tokenizer files are missing, transformers makes up an empty tokenizer.
    if image is None or image != config.image_token_id:
        remedy = f"its tokenizer does not know {family.image_token} as token {config.image_token_id}"
        raise fault(checkpoint, f"{remedy}; copy the tokenizer files into the folder")
    if end is None or written.get(family.turn_end, [end]) != [end]:
        raise fault(
            checkpoint, f"its tokenizer does not know {family.turn_end}; copy the tokenizer files into the folder"
        )
    for token, ids in written.items():
        if len(ids) != 1:
            remedy = f"its tokenizer cuts {token} into {len(ids)} tokens, while the model learnt it as one"
            raise fault(checkpoint, f"{remedy}; copy the tokenizer files that belong to it into the folder")
    size = config.get_text_config().vocab_size
    if highest >= size:
        remedy = f"its tokenizer has a token {highest}, but the model only {size} embeddings"
        raise fault(checkpoint, f"{remedy}; give a folder whose files belong together")
    if tokenizer.chat_template is None:
        tokenizer.chat_template = family.chat_template
    try:
        check_chat_template(tokenizer, family.image_token)
    except ConfigError as error:
        remedy = f"its chat template (chat_template.jinja or tokenizer_config.json) {error.remedy}"
        raise fault(checkpoint, f"{remedy}; correct it, or remove it for that of {family.model_type}") from error
    return tokenizer


def _picture_settings(checkpoint: str, family: Family, config: Any) -> PictureSettings:
    name = picture_settings.FILE
    if (Path(checkpoint) / name).is_file():
        content = read_object(checkpoint, name)
    else:  # a name on the hub, or the newer file that holds them beside other settings
        with reading(checkpoint, f"its {name} cannot be read"):
            content = ImageProcessingMixin.get_image_processor_dict(checkpoint)[0]
    try:
        return family.picture_settings(content, config)
    except ConfigError as error:
        raise fault(checkpoint, f"its {name}: {error.field}: {error.remedy}; correct the file") from error
