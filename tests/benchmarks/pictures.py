"""What a picture costs before the model sees it: JPEG decode, our patches, and transformers' image processor.

python tests/benchmarks/pictures.py
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from kvg.backbones.builtin import lab_tokenizer
from kvg.backbones.families.qwen2_vl import Qwen2VL
from kvg.backbones.processor import ChatProcessor

sys.path.insert(0, str(Path(__file__).parent))
from compare_grpo import spread


def milliseconds(work: Callable[[], object], repeats: int) -> list[float]:
    """Times of single calls, after one that is not counted."""
    found = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        found.append(1000 * (time.perf_counter() - start))
    return found[1:]


def main() -> int:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    ours = ChatProcessor(lab_tokenizer(), Qwen2VL())
    theirs = Qwen2VLImageProcessorPil(size={"shortest_edge": ours.min_pixels, "longest_edge": ours.max_pixels})
    print("milliseconds on one thread, median and range")
    print("| picture | decode | our patches | normalised later | transformers | MiB sent | MiB of floats |")
    print("|--|--|--|--|--|--|--|")
    for width, height in ((448, 448), (640, 480), (1024, 768)):
        noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        data = file.getvalue()
        patches = ours.picture(image).tensors["patches"]
        floats = ours.pictures.pixel_values(patches)
        columns = [
            spread(milliseconds(work, args.repeats))
            for work in (
                lambda data=data: Image.open(io.BytesIO(data)).convert("RGB"),
                lambda image=image: ours.picture(image),
                lambda patches=patches: ours.pictures.pixel_values(patches),
                lambda image=image: theirs(images=image, return_tensors="pt"),
            )
        ]
        columns += [f"{x.numel() * x.element_size() / 2**20:.2f}" for x in (patches, floats)]
        print(f"| {width}x{height} | {' | '.join(columns)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
