"""Our step of stage 2 as group, completion, picture and vocabulary grow, beside what the method cannot avoid.

    python tests/benchmarks/growth.py

Counted are matrix products in float32: a picture once, a prompt and its completions once for drawing and once for
learning, a pass backwards as twice the pass forwards. Learning includes the picture's pass, whose tokens serve drawing,
too. Of the memory, three copies of the embedding are its gradient and AdamW's two moments. Each run is a process of its
own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
BASE = {"group": 8, "completion": 64, "image-size": 448, "vocabulary": 4160}
GROWN = {
    "group": (2, 4, 8, 16),
    "completion": (32, 64, 128, 256),
    "image-size": (224, 448, 672),
    "vocabulary": (4160, 37_984, 151_936),
}
COLUMNS = (
    *("group", "completion", "picture", "vocabulary", "prompt", "step, s", "drawing, s", "Gop", "learning, s", "Gop"),
    *("of the rate", "MiB above the model", "embedding x 3, MiB"),
)
PATCH, MERGE = 14, 2
RATE = """
import time, torch
torch.set_num_threads({threads})
a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
best = 1e9
for _ in range(20):
    start = time.perf_counter()
    a @ b
    best = min(best, time.perf_counter() - start)
print(2 * 2048**3 / best / 1e9)
"""


@dataclass(frozen=True)
class Work:
    """Operations in 10^9 (a product and a sum are two)."""

    drawing: float
    learning: float


def work(checkpoint: Path, prompt: int, group: int, completion: int, side: int) -> Work:
    """What one prompt's step cannot avoid, in drawing and in learning.

    Args:
        checkpoint: its config tells the widths.
        prompt: tokens of the prompt.
        group: completions.
        completion: tokens of each.
        side: of the picture in pixels.
    """
    config = json.loads((checkpoint / "config.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    width, heads, shared = text["hidden_size"], text["num_attention_heads"], text["num_key_value_heads"]
    head = width // heads
    layer = 2 * width * width + 2 * width * shared * head + 3 * width * text["intermediate_size"]
    tokens = group * completion
    # A causal token sees half of its own kind; a completion's token its whole prompt, too.
    pairs = prompt**2 / 2 + group * completion**2 / 2 + tokens * prompt
    language = text["num_hidden_layers"] * (2 * layer * (prompt + tokens) + 4 * heads * head * pairs)
    scores = 2 * width * text["vocab_size"] * tokens
    patches, deep = (side // PATCH) ** 2, vision["embed_dim"]
    block = (4 + 2 * vision["mlp_ratio"]) * deep**2
    merged = MERGE**2 * deep
    tower = vision["depth"] * (2 * block * patches + 4 * deep * patches**2)
    tower += 2 * patches * deep * 3 * 2 * PATCH**2 + 2 * patches / MERGE**2 * (merged**2 + merged * width)
    return Work((language + scores) / 1e9, 3 * (language + scores + tower) / 1e9)


def main() -> int:
    """Runs every size and prints a table."""
    from checkpoints import SIZES, build
    from compare_grpo import measure

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    fixed = ["--threads", str(args.threads), "--steps", str(args.steps)]
    script = RATE.format(threads=args.threads)
    rate = float(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)
    print(f"{args.size}; products of 2048 x 2048: {rate:.0f} Gop/s on {args.threads} threads")
    print(f"| {' | '.join(COLUMNS)} |\n|{'--|' * len(COLUMNS)}")
    done: dict[tuple[int, ...], dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, values in GROWN.items():
            for value in values:
                shape = {**BASE, name: value}
                key = tuple(shape.values())
                *sizes, vocabulary = key
                checkpoint = Path(folder) / str(vocabulary)
                if not checkpoint.exists():
                    build(checkpoint, args.size, vocabulary)
                options = [word for name in shape if name != "vocabulary" for word in (f"--{name}", str(shape[name]))]
                if key not in done:
                    done[key] = measure("grpo_step.py", ["--checkpoint", str(checkpoint), *fixed, *options])
                needed = work(checkpoint, done[key]["prompt_tokens"], *sizes)
                embedding = vocabulary * SIZES[args.size][0][0] * 4 / 2**20
                print(row(shape, done[key], needed, rate) + f" {3 * embedding:.0f} |", flush=True)
    return 0


def row(shape: dict[str, int], run: dict[str, Any], needed: Work, rate: float) -> str:
    """One size in the table."""
    phases = run["phases_s"]
    learning = phases["vision"] + phases["forward"] + phases["backward"]
    cells = [*map(str, shape.values()), str(run["prompt_tokens"]), f"{run['step_s']:.2f}"]
    cells += [f"{phases['sample']:.2f}", f"{needed.drawing:.0f}", f"{learning:.2f}", f"{needed.learning:.0f}"]
    cells += [f"{needed.learning / learning / rate:.0%}", f"{run['peak_rss_mib'] - run['before_mib']}"]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
