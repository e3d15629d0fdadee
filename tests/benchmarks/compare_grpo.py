"""Times our GRPO step and TRL's in turns, on the same checkpoint, and prints ratios with their spread.

    python tests/benchmarks/compare_grpo.py --peer newest= --peer 1.13.0=FOLDER

Each run is a process of its own. ``--peer NAME=FOLDER`` names a release of TRL that was installed with
``pip install --no-deps --target FOLDER trl==...``; an empty folder is the installed one. A ratio is that of the two
runs of one turn, so what slows the machine down for a while slows both.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
PHASES = ("vision", "sample", "reward", "reference", "forward", "backward", "optimizer", "other")


def measure(script: str, args: list[str]) -> dict[str, Any]:
    """One run in a process of its own."""
    done = subprocess.run([sys.executable, str(HERE / script), *args], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{script} {' '.join(args)}\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def line(name: str, runs: list[dict[str, Any]]) -> str:
    """A row of the table: seconds, phases, memory above the model."""
    phases = [median(run["phases_s"].get(phase, 0.0) for run in runs) for phase in PHASES]
    memory = median(run["peak_rss_mib"] - run["before_mib"] for run in runs)
    cells = " | ".join(f"{seconds:.2f}" for seconds in phases)
    return f"| {name} | {spread([r['step_s'] for r in runs])} | {cells} | {memory:.0f} |"


def main() -> int:
    """Runs everything in turns and prints a table."""
    from checkpoints import SIZES, build

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--vocabulary", type=int, default=4160)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--ours", action="append", default=[], help="an option for our runner alone, e.g. --freeze-vision"
    )
    args, shared = parser.parse_known_args()
    found: dict[str, list[dict[str, Any]]] = {"ours": []}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = build(Path(folder) / "model", args.size, args.vocabulary)
        common = ["--checkpoint", str(checkpoint), *shared]
        for _ in range(args.turns):
            found["ours"].append(measure("grpo_step.py", [*common, *args.ours]))
            for peer in args.peer:
                name, _, release = peer.partition("=")
                more = ["--trl", release] if release else []
                found.setdefault(f"TRL {name}", []).append(measure("trl_step.py", [*common, *more]))
    ours = found["ours"]
    print(
        f"{args.size}, {args.vocabulary} tokens, prompt of {ours[0]['prompt_tokens']}; {' '.join(shared) or 'defaults'}"
    )
    print(f"| | step, s | {' | '.join(PHASES)} | MiB above the model |")
    print("|--|--|" + "--|" * (len(PHASES) + 1))
    for name, runs in found.items():
        print(line(name, runs))
    for name, runs in found.items():
        if name == "ours":
            continue
        times = [peer["step_s"] / own["step_s"] for peer, own in zip(runs, ours, strict=True)]
        cpu = [peer["step_cpu_s"] / own["step_cpu_s"] for peer, own in zip(runs, ours, strict=True)]
        memory = [
            (own["peak_rss_mib"] - own["before_mib"]) / (peer["peak_rss_mib"] - peer["before_mib"])
            for peer, own in zip(runs, ours, strict=True)
        ]
        print(f"{name}: {spread(times)} times our time, {spread(cpu)} times our CPU time")
        print(f"{name}: our memory above the model is {spread(memory)} of its")
    return 0


if __name__ == "__main__":
    sys.exit(main())
