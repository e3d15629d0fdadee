"""Random Qwen2-VL checkpoints and pictures on which our trainer and its peer do the same work."""

from __future__ import annotations

import argparse
import io
import random
import shutil
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw

from kvg.composites.compositor import Compositor
from kvg.lab.world import LabSource, lab_canvas
from kvg.types import Sample, SceneObject

SIZES = {  # text: width, layers, heads, key-value heads, mlp; vision: width, layers, heads
    "small": ((256, 6, 4, 2, 1024), (256, 4, 4)),
    "medium": ((512, 6, 8, 2, 2048), (256, 6, 4)),
    "2b": ((1536, 28, 12, 2, 8960), (1280, 32, 16)),  # as published, for GPUs
    "7b": ((3584, 28, 28, 4, 18944), (1280, 32, 16)),  # as published, but for the output layer, which is tied here
}
REAL_VOCABULARY = 151_936  # rows of the published 2B model


def build(
    folder: Path,
    size: str,
    vocabulary: int = 4160,
    dtype: str = "float32",
    num_layers: int | None = None,
    device: str = "cpu",
) -> Path:
    """Writes a checkpoint with the lab's tokenizer, its vocabulary filled up with rows that no text uses.

    Args:
        folder: made where it is missing.
        size: one of ``SIZES``.
        vocabulary: rows of the embedding.
        dtype: ``float32`` or ``bfloat16``.
        num_layers: of the language model; None for those of the size.
        device: where the weights are drawn; a GPU is many times as fast.
    """
    import torch

    from kvg.backbones.builtin import TinySize, build_model, lab_tokenizer, qwen2_vl_config
    from kvg.backbones.families.qwen2_vl import Qwen2VL
    from kvg.backbones.folders import write_folder
    from kvg.backbones.picture_settings import PatchSettings
    from kvg.backbones.processor import ChatProcessor

    (hidden, layers, heads, kv_heads, mlp), (width, depth, vision_heads) = SIZES[size]
    layers = num_layers or layers
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))  # weights are made in it: cast, the largest would be held twice
    try:
        size_of = TinySize(hidden, layers, heads, kv_heads, mlp, width, depth, vision_heads, 1_000_000.0)
        with torch.device(device):
            model = build_model(Qwen2VL.hf_class, qwen2_vl_config(lab_tokenizer(), size_of))
    finally:
        torch.set_default_dtype(before)
    model.resize_token_embeddings(vocabulary, mean_resizing=False)
    processor = ChatProcessor(lab_tokenizer(), Qwen2VL(), PatchSettings(max_pixels=12_845_056))
    write_folder(folder, model, processor)
    return folder


def random_twin(checkpoint: Path, folder: Path) -> Path:
    """Writes a checkpoint like another one, with random weights of the same shapes.

    Args:
        checkpoint: a Qwen2-VL folder.
        folder: made where it is missing.
    """
    from transformers import AutoConfig

    from kvg.backbones.builtin import build_model
    from kvg.backbones.families.qwen2_vl import Qwen2VL

    config = AutoConfig.from_pretrained(checkpoint)
    build_model(Qwen2VL.hf_class, config, "float32").save_pretrained(folder)
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("*.safetensors*"), dirs_exist_ok=True)
    return folder


def lab_samples(num: int, side: int) -> list[Sample]:
    """Questions about composites of the lab, each enlarged from 140 px to a square of this side in pixels.

    The questions and what the pictures show are the same at every size.
    """
    compositor = Compositor(
        LabSource(), replace(lab_canvas(0, {2: 1.0, 3: 1.0, 4: 1.0}, neighbour_prob=0.8), split="seen")
    )
    return [_resized(compositor.sample(index), side) for index in range(num)]


def _resized(sample: Sample, side: int) -> Sample:
    file, scale = io.BytesIO(), side / sample.width
    Image.open(io.BytesIO(sample.image)).resize((side, side), Image.Resampling.BICUBIC).save(file, "PNG")
    objects = tuple(
        replace(item, box_px=tuple(round(corner * scale) for corner in item.box_px)) for item in sample.objects
    )
    return replace(sample, image=file.getvalue(), width=side, height=side, objects=objects)


def scene(seed: int, side: int) -> Sample:
    """A square PNG with four coloured discs, one of which is asked for."""
    rng = random.Random(seed)
    image = Image.new("RGB", (side, side), (rng.randrange(200, 246),) * 3)
    pen, objects = ImageDraw.Draw(image), []
    for number, name in enumerate(("red", "green", "blue", "orange")):
        size = rng.randrange(side // 6, side // 3)
        left = number % 2 * side // 2 + rng.randrange(side // 2 - size)
        top = number // 2 * side // 2 + rng.randrange(side // 2 - size)
        pen.ellipse((left, top, left + size, top + size), fill=name)
        objects.append(SceneObject(f"the {name} disc", (left, top, left + size, top + size)))
    file = io.BytesIO()
    image.save(file, "PNG")
    return Sample(f"{seed:06d}", file.getvalue(), side, side, "bird", "seen", tuple(objects), 0)


def main() -> None:
    """Writes one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--vocabulary", type=int, default=4160)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--layers", type=int, help="of the language model (default: those of the size)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where weights are drawn")
    args = parser.parse_args()
    print(build(args.out, args.size, args.vocabulary, args.dtype, args.layers, args.device))


if __name__ == "__main__":
    main()
