"""Products of ``kvg.linear`` beside those of ``torch.nn.functional.linear``, forwards and backwards, in turns.

python tests/benchmarks/linear.py --threads 1
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
from compare_grpo import spread

from kvg.linear import linear, packed

SHAPES = ((64, 192, 384), (64, 192, 1024), (1024, 192, 768), (256, 512, 2048), (64, 1536, 8960))


def milliseconds(repeats: int, run: Callable[..., object], *args: object) -> float:
    """Median time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(*args)
        times.append(1000 * (time.perf_counter() - start))
    return median(times)


def step(function: Callable[[Tensor, Tensor], Tensor], states: Tensor, weight: Tensor) -> None:
    """Forward and backward pass."""
    function(states, weight).sum().backward()


def main() -> int:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{args.threads} threads, {torch.backends.cpu.get_cpu_capability()}; how many times as fast, with the range")
    print("| rows x inputs x outputs | forward | forward, weight packed | forward and backward |")
    print("|--|--|--|--|")
    for rows, width, outputs in SHAPES:
        states, weight = torch.randn(rows, width, requires_grad=True), torch.randn(outputs, width, requires_grad=True)
        repeats = max(5, 2**31 // (rows * width * outputs * 20))
        columns: list[list[float]] = [[], [], []]
        for _ in range(args.turns):
            with torch.no_grad():
                copy = packed(weight.detach(), None, rows)
                plain = milliseconds(repeats, F.linear, states, weight)
                columns[0].append(plain / milliseconds(repeats, linear, states, weight))
                columns[1].append(plain / milliseconds(repeats, copy, states))
            plain = milliseconds(repeats, step, F.linear, states, weight)
            columns[2].append(plain / milliseconds(repeats, step, linear, states, weight))
        print(f"| {rows} x {width} x {outputs} | {' | '.join(map(spread, columns))} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
