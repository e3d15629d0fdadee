"""Hugging Face folders: read with every fault named, and written so that plain transformers reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, PreTrainedTokenizerBase

from kvg.backbones.processor import IMAGE_TOKEN, QwenVLProcessor
from kvg.errors import ConfigError
from kvg.text.prompts import PROMPTS

ABOUT: Final = "kvg.json"  # what no other file of a folder tells
Loaded = tuple[Any, PreTrainedTokenizerBase, dict[str, int]]


def load_checkpoint(hf_class: type[Any], model_type: str, checkpoint: str, dtype: str, attn: str) -> Loaded:
    """Model, tokenizer and picture settings of a folder or a hub name. Runs no code from the checkpoint.

    Raises:
        ConfigError: it is not there, not whole, or of another architecture.
    """
    found = _config(checkpoint).get("model_type")
    if found != model_type:
        remedy = f"holds a {found} model, not {model_type}; choose the backbone class of that family"
        raise _fault(checkpoint, remedy)
    model = _model(hf_class, checkpoint, dtype, attn)
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    except (OSError, ValueError) as error:
        raise _fault(checkpoint, f"its tokenizer cannot be read ({_first_line(error)})") from error
    # Where tokenizer files are missing, transformers makes up an empty tokenizer.
    if tokenizer.convert_tokens_to_ids(IMAGE_TOKEN) != model.config.image_token_id:
        remedy = f"its tokenizer does not know {IMAGE_TOKEN} as token {model.config.image_token_id}"
        raise _fault(checkpoint, f"{remedy}; copy the tokenizer files into the folder")
    return model, tokenizer, _picture_settings(checkpoint)


def _config(checkpoint: str) -> dict[str, Any]:
    folder = Path(checkpoint)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise _fault(checkpoint, "has no config.json; give a Hugging Face folder")
    if not folder.exists() and (checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") != 1):
        raise _fault(checkpoint, "is no such folder, and no name on the hub; correct the path")
    try:
        return dict(AutoConfig.from_pretrained(checkpoint).to_dict())
    except (OSError, ValueError, RecursionError) as error:
        raise _fault(checkpoint, f"cannot be read ({_first_line(error)})") from error


def _model(hf_class: type[Any], checkpoint: str, dtype: str, attn: str) -> Any:
    try:
        model, report = hf_class.from_pretrained(
            checkpoint,
            dtype=dtype,
            attn_implementation=attn,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported below with their names, instead of raised without
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise _fault(checkpoint, f"model.safetensors or its settings cannot be used ({_first_line(error)})") from error
    misfits = sorted(report["missing_keys"]) + sorted(key[0] for key in report["mismatched_keys"])
    if misfits:
        remedy = f"{len(misfits)} weights are missing or do not fit its config.json ({misfits[0]}, ...)"
        raise _fault(checkpoint, f"{remedy}; give a folder whose files belong together")
    return model


def _picture_settings(checkpoint: str) -> dict[str, int]:
    try:
        found = AutoImageProcessor.from_pretrained(checkpoint, backend="pil")
    except (OSError, ValueError) as error:
        raise _fault(checkpoint, f"its preprocessor_config.json cannot be read ({_first_line(error)})") from error
    return {
        "min_pixels": int(found.size["shortest_edge"]),
        "max_pixels": int(found.size["longest_edge"]),
        "patch_size": int(found.patch_size),
        "merge_size": int(found.merge_size),
        "temporal_patch_size": int(found.temporal_patch_size),
    }


def _fault(checkpoint: str, remedy: str) -> ConfigError:
    return ConfigError("backbone.checkpoint", f"'{checkpoint}' {remedy}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


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
    path = Path(checkpoint) / ABOUT
    if not path.is_file():
        return None
    try:
        mode = json.loads(path.read_text("utf-8"))["mode"]
    except (ValueError, KeyError, TypeError) as error:
        raise _fault(checkpoint, f"its {ABOUT} cannot be read ({error!r}); remove it, or export again") from error
    if mode not in PROMPTS:
        raise _fault(checkpoint, f"its {ABOUT} names the mode {mode!r}; choose one of {', '.join(PROMPTS)}")
    return str(mode)


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
    (folder / ABOUT).unlink(missing_ok=True)
    if mode is not None:
        (folder / ABOUT).write_text(json.dumps({"mode": mode}) + "\n")


def end_tokens(told: int | list[int] | None, turn_end: int) -> tuple[int, ...]:
    """Tokens that end a completion: those that a checkpoint tells of, and the end of the turn, which is what is taught.

    >>> end_tokens(None, 5), end_tokens(7, 5), end_tokens([5, 7], 5)
    ((5,), (7, 5), (5, 7))
    """
    listed = told if isinstance(told, list) else [] if told is None else [told]
    return tuple(dict.fromkeys([*listed, turn_end]))
