"""What keeping freed memory is worth: rollout, scoring and backward pass of the lab's model, with and without.

    python tests/benchmarks/memory.py

Each setting runs in a process of its own, in turns; the figures are medians over the later steps.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median


def measure(keep: bool, steps: int, rows: int, new_tokens: int) -> dict[str, float]:
    """Seconds of each phase in this process."""
    import torch

    from kvg.backbones.backbone import Backbone
    from kvg.composites.compositor import Compositor
    from kvg.lab.world import LabSource, lab_canvas
    from kvg.rl.rollout import rollout
    from kvg.rl.sampling import SamplingSettings
    from kvg.work.cpu import keep_freed_memory

    torch.set_num_threads(1)
    if keep:
        keep_freed_memory()
    backbone = Backbone("lab-random", max_pixels=19600)
    backbone.end_token_ids = (-1,)  # completions of one length, so that the work is fixed
    compositor = Compositor(LabSource(variants=1), lab_canvas(0, {3: 1.0}, 0.5))
    samples = [compositor.sample(index) for index in range(rows // 4)]
    examples = [backbone.processor.encode(sample, mode="think", target=None) for sample in samples]
    batch = backbone.processor.collate(examples, samples, pad_left=True)
    found: dict[str, list[float]] = {"rollout": [], "score": [], "backward": []}
    for step in range(steps):
        times = [time.perf_counter()]
        generator = torch.Generator().manual_seed(step)
        out = rollout(backbone.eval(), batch, SamplingSettings(new_tokens, 1.0), 4, generator)
        times.append(time.perf_counter())
        scores, _ = backbone.train().completion_logprobs(batch, out.tokens, out.completion_mask)
        times.append(time.perf_counter())
        scores.sum().backward()
        times.append(time.perf_counter())
        for name, start, end in zip(found, times, times[1:], strict=False):
            found[name].append(end - start)
    return {name: median(seconds[1:]) for name, seconds in found.items()}


def main() -> int:
    """Runs both settings in turns and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="in each process; the first is not counted")
    parser.add_argument("--rows", type=int, default=64, help="completions, in groups of 4")
    parser.add_argument("--new-tokens", type=int, default=190)
    parser.add_argument("--keep", choices=("yes", "no"), help="measure in this process and print JSON")
    args = parser.parse_args()
    if args.keep:
        print(json.dumps(measure(args.keep == "yes", args.steps, args.rows, args.new_tokens)))
        return 0
    found: dict[str, list[dict[str, float]]] = {"no": [], "yes": []}
    given = ["--steps", str(args.steps), "--rows", str(args.rows), "--new-tokens", str(args.new_tokens)]
    for _ in range(args.turns):
        for keep, rows in found.items():
            done = subprocess.run(
                [sys.executable, str(Path(__file__)), "--keep", keep, *given],
                check=True,
                capture_output=True,
                text=True,
            )
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    for name in ("rollout", "score", "backward"):
        without, kept = ([row[name] for row in found[keep]] for keep in ("no", "yes"))
        ratios = [a / b for a, b in zip(without, kept, strict=True)]
        print(
            f"{name:9s} {median(without):6.2f} s, kept {median(kept):6.2f} s, "
            f"{median(ratios):.2f} times faster ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
