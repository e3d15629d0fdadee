"""Checkpoints with the shape of a published model and random weights, of which one tensor exists at a time.

python -m tests.benchmarks.true_shapes --size Qwen2-VL-7B --out /tmp/7b
"""

from __future__ import annotations

import argparse
from functools import cache, partial
from pathlib import Path

import torch
from transformers import GenerationConfig

from kvg.backbones.builtin import random_tokenizer
from kvg.backbones.folders import write_folder
from kvg.backbones.processor import ChatProcessor
from kvg.backbones.saved_weights import LazyTensor
from kvg.planning.known_sizes import published, size_of

STD = 0.02  # as the published configs begin
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def write(folder: Path, name: str, dtype: torch.dtype = torch.bfloat16, num_layers: int | None = None) -> Path:
    """Writes a checkpoint in files of at most 5 GB, with the lab's tokenizer; no text uses the other rows.

    Args:
        folder: made where it is missing.
        name: of a model in ``kvg/planning/sizes``.
        dtype: of the weights.
        num_layers: of the language model; None for all.
    """
    size = size_of(name, name=name)
    config, family = size.config, size.family
    tokenizer = random_tokenizer("tiny", family)
    small = family.tiny_config(tokenizer)
    for key, value in small.to_dict().items():
        if key.endswith("_token_id") and isinstance(value, int):
            setattr(config, key, value)
    for key in _IDS:
        setattr(config.text_config, key, getattr(small.text_config, key))
    if num_layers is not None:
        config.text_config.num_hidden_layers = num_layers
        config.text_config.layer_types = config.text_config.layer_types[:num_layers]
    with torch.device("meta"):
        model = family.hf_class(config).to(dtype)
    ends = [getattr(config.text_config, key) for key in _IDS[1:]]
    model.generation_config = GenerationConfig(
        bos_token_id=config.text_config.bos_token_id, eos_token_id=ends, pad_token_id=ends[1]
    )
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    state = {
        key: LazyTensor(shape, dtype, partial(_draw, key, shape, dtype, seed))
        for seed, (key, shape) in enumerate(shapes.items())
    }
    write_folder(folder, model, ChatProcessor(tokenizer, family, size.pictures), state=state)
    return folder


@cache
def _numbers(dtype: torch.dtype) -> torch.Tensor:
    """Drawn once, as 8 billion would take minutes. The odd count shifts the rows of a matrix against each other."""
    return torch.empty(2**24 + 43).normal_(std=STD, generator=torch.Generator().manual_seed(0)).to(dtype)


def _draw(name: str, shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    if len(shape) == 1 and not name.endswith("bias"):
        return torch.ones(shape, dtype=dtype)
    pool, size = _numbers(dtype), torch.Size(shape).numel()
    start = seed * 7919 % len(pool)
    return pool.repeat(1 + (start + size) // len(pool))[start : start + size].view(shape)


def main() -> None:
    """Writes one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(published()), required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    print(write(args.out, args.size))


if __name__ == "__main__":
    main()
