"""Hugging Face folders of trained models: written so that plain transformers reads them, and what only ours tell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from torch import Tensor, nn

from kvg.backbones.checkpoint_files import fault, read_object
from kvg.backbones.processor import QwenVLProcessor
from kvg.records import excerpt
from kvg.text.prompts import PROMPTS

ABOUT: Final = "kvg.json"  # what no other file of a folder tells


def full_state(model: nn.Module, sharded: bool) -> dict[str, Tensor]:
    """All weights as plain tensors; where they are sharded, every process must ask, and the first one gets them."""
    if not sharded:
        return dict(model.state_dict())
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return cast(dict[str, Tensor], get_model_state_dict(model, options=options))


def trained_mode(checkpoint: str) -> str | None:
    """The prompt mode that a folder's model was trained with; None where its ``kvg.json`` does not tell.

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
    folder: Path, model: Any, state: Mapping[str, Tensor], processor: QwenVLProcessor, mode: str | None = None
) -> None:
    """Writes weights (safetensors), settings, tokenizer, picture settings, and how the model wants to be asked.

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
    # All is spelt out: transformers would fill in what is missing, while vLLM shows the model raw bytes without a word.
    picture = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "resample": 3,  # bicubic
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(processor.image_mean),
        "image_std": list(processor.image_std),
        "size": {"shortest_edge": processor.min_pixels, "longest_edge": processor.max_pixels},
        "patch_size": processor.patch_size,
        "merge_size": processor.merge_size,
        "temporal_patch_size": processor.temporal_patch_size,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(picture, indent=1) + "\n")
    (folder / ABOUT).write_text(json.dumps({"mode": mode}) + "\n")


def end_tokens(told: int | list[int] | None, turn_end: int) -> tuple[int, ...]:
    """Tokens that end a completion: those that a checkpoint tells of, and the end of the turn, which is what is taught.

    >>> end_tokens(None, 5), end_tokens(7, 5), end_tokens([5, 7], 5)
    ((5,), (7, 5), (5, 7))
    """
    listed = told if isinstance(told, list) else [] if told is None else [told]
    return tuple(dict.fromkeys([*listed, turn_end]))
