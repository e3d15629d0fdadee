"""Hugging Face folders of trained models: written so that plain transformers reads them, with one file of our own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from kvg.backbones import picture_settings
from kvg.backbones.checkpoint_files import ABOUT, fault, read_object
from kvg.backbones.four_bit import dequantized
from kvg.backbones.lora import LoRASettings
from kvg.backbones.processor import ChatProcessor
from kvg.backbones.saved_weights import Weight
from kvg.backbones.weight_writer import Check, exported_parts, write_weights
from kvg.records import excerpt
from kvg.text.box_codec import ImageSize
from kvg.text.prompts import PROMPTS, prompt

PROCESSOR: Final = "processor_config.json"
NAME: Final = "{name}"  # stands for the entity's name in the prompt of that file
PLAIN: Final = "direct"  # prompt mode of a model that was trained for none


def full_state(model: nn.Module, sharded: bool) -> dict[str, Tensor]:
    """All weights as plain tensors; where they are sharded, every process must ask, and the first one gets them."""
    if not sharded:
        return dequantized(model, dict(model.state_dict()))
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return cast(dict[str, Tensor], get_model_state_dict(model, options=options))


def trained_mode(checkpoint: str) -> str | None:
    """The prompt mode that a folder's model was trained with; None where its ``kvg.json`` names none.

    Raises:
        ConfigError: that file is damaged, or names a mode that there is not.
    """
    if not is_export(checkpoint):
        return None
    mode = read_object(checkpoint, ABOUT).get("mode")
    if mode is not None and (not isinstance(mode, str) or mode not in PROMPTS):
        raise fault(checkpoint, f"its {ABOUT} names the mode {excerpt(mode)}; choose one of {', '.join(PROMPTS)}")
    return mode


def is_export(checkpoint: str) -> bool:
    """Whether a folder was written by ``write_folder``, so that all that it says is what the model was trained with."""
    return (Path(checkpoint) / ABOUT).is_file()


def write_folder(
    folder: Path,
    model: Any,
    processor: ChatProcessor,
    mode: str | None = None,
    lora: LoRASettings | None = None,
    state: Mapping[str, Weight] | None = None,
    check: Check | None = None,
) -> None:
    """Writes weights (safetensors), settings, tokenizer, picture settings, and how the model is asked (``kvg.json``).

    Every process has to call it where the model is sharded; the first one writes.

    Args:
        folder: made where it is missing.
        model: whose class, settings and weights it is.
        processor: brings tokenizer and picture settings.
        mode: prompt mode that it was trained with; None where it was trained for none.
        lora: settings of the model's adapters, which are merged.
        state: weights in the place of the model's own.
        check: see ``write_weights``.
    """
    write_weights(folder, model, exported_parts(model, lora, state), check)
    if dist.is_available() and dist.is_initialized() and dist.get_rank() != 0:
        return
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    model.config.architectures = [type(model).__name__.removeprefix("FSDP")]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    write_description(folder, processor, mode)


def write_description(
    folder: Path, processor: ChatProcessor, mode: str | None, more: Mapping[str, Any] | None = None
) -> None:
    """Writes all of a folder that is neither weights nor settings of the model.

    Args:
        folder: that exists.
        processor: brings tokenizer and picture settings.
        mode: prompt mode of the training; None where it was trained for none.
        more: further entries of ``kvg.json``.
    """
    processor.tokenizer.save_pretrained(folder)
    (folder / picture_settings.FILE).write_text(json.dumps(processor.pictures.file_content(), indent=1) + "\n")
    if content := processor.family.processor_content(processor.pictures.settings):
        (folder / PROCESSOR).write_text(json.dumps(dict(content), indent=1) + "\n")
    about = {**describe(processor, mode), **(more or {})}
    (folder / ABOUT).write_text(json.dumps(about, indent=1) + "\n")


def describe(processor: ChatProcessor, mode: str | None) -> dict[str, Any]:
    """Content of ``kvg.json``: what other programs need to ask the model as it was trained.

    Args:
        processor: of the model.
        mode: prompt mode that it was trained with; None where it was trained for none.
    """
    codec, size = processor.codec, ImageSize(1000, 1000, 1000, 1000)
    return {
        "mode": mode,
        "prompt": prompt(NAME, mode or PLAIN, processor.prompt_format),
        "box": {
            "codec": codec.name,
            "unit": "relative_1000" if codec.name == "relative" else "pixels of the resized picture",
            "example": codec.encode((250.0, 250.0, 750.0, 750.0), size),
        },
        "min_pixels": processor.min_pixels,
        "max_pixels": processor.max_pixels,
    }


def end_tokens(stored: int | list[int] | None, turn_end: int) -> tuple[int, ...]:
    """Tokens that end a completion: those of a checkpoint, and the end of the turn, which is what is taught.

    >>> end_tokens(None, 5), end_tokens(7, 5), end_tokens([5, 7], 5)
    ((5,), (7, 5), (5, 7))
    """
    listed = stored if isinstance(stored, list) else [] if stored is None else [stored]
    return tuple(dict.fromkeys([*listed, turn_end]))
