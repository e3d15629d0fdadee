"""Hugging Face folders of trained models: written so that plain transformers reads them, with one file of our own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from kvg.backbones import picture_settings
from kvg.backbones.checkpoint_files import fault, read_object
from kvg.backbones.processor import ChatProcessor
from kvg.records import excerpt
from kvg.text.box_codec import ImageSize
from kvg.text.prompts import PROMPTS, prompt

ABOUT: Final = "kvg.json"  # what no other file of a folder holds
NAME: Final = "{name}"  # stands for the entity's name in the prompt of that file
PLAIN: Final = "direct"  # prompt mode of a model that was trained for none


def full_state(model: nn.Module, sharded: bool) -> dict[str, Tensor]:
    """All weights as plain tensors; where they are sharded, every process must ask, and the first one gets them."""
    if not sharded:
        return dict(model.state_dict())
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
    folder: Path, model: Any, state: Mapping[str, Tensor], processor: ChatProcessor, mode: str | None = None
) -> None:
    """Writes weights (safetensors), settings, tokenizer, picture settings, and how the model is asked (``kvg.json``).

    Args:
        folder: made where it is missing.
        model: whose class and settings it is.
        state: its weights.
        processor: brings tokenizer and picture settings.
        mode: prompt mode that it was trained with; None where it was trained for none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    model.save_pretrained(folder, state_dict={name: value for name, value in state.items() if name not in tied})
    processor.tokenizer.save_pretrained(folder)
    (folder / picture_settings.FILE).write_text(json.dumps(processor.pictures.file_content(), indent=1) + "\n")
    (folder / ABOUT).write_text(json.dumps(_about(processor, mode), indent=1) + "\n")


def _about(processor: ChatProcessor, mode: str | None) -> dict[str, Any]:
    """What other programs need to ask the model as it was trained; KVG itself reads ``mode`` alone."""
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
