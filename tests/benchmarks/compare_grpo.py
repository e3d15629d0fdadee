"""Times our GRPO step and TRL's in turns, on the same checkpoints, and prints tables in Markdown.

    python tests/benchmarks/compare_grpo.py --checkpoint runs/demo/cot_sft/export

Measured are whole optimizer steps, from image bytes to updated weights, with random and with trained weights of the
same shapes, for each size of the group and of the picture. Both sides have the same weights, the same questions about
the same pictures in the same order (their tokens are compared), the same temperature, loss and optimizer, and both
keep freed memory.

Completions have the same length on both sides: ``--completion`` tokens, and no token ends them. The default, 64, is
less than most completions of the lab's model have, so that its text is what it writes in training. Beside it, trained
weights sample freely, up to ``--longest`` tokens, as in training. Then lengths differ by chance, and the seconds of a
sampled token are what is compared, which for forced lengths is the same as comparing seconds of a step.

Ours runs twice: with speculative sampling, as by default, and without. Its drafter knows nothing at first, and learns
from all steps of the run, also from those that warm up.

Each run is a process of its own. A ratio is that of the two runs of one turn, so what slows the machine down for a
while slows both. All cases are run in one turn before the next begins, and an interrupted command prints what it has.

``--trl FOLDER`` measures a release of TRL that was installed with ``pip install --no-deps --target FOLDER trl==...``,
in place of the installed one; it may be repeated. Without ``--checkpoint``, a random model of ``--size`` is measured.
Other options of ``grpo_step.py`` go to both sides.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
PHASES = ("vision", "sample", "reward", "reference", "forward", "backward", "optimizer", "other")
OURS, PLAIN = "ours", "ours, no speculation"
Run = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """What one row of the table measures."""

    weights: str
    checkpoint: Path
    side: int  # of the picture, in pixels
    group: int
    tokens: int  # of a completion
    free: bool  # whether completions end by themselves before

    @property
    def options(self) -> list[str]:
        """For ``grpo_step.py`` and ``trl_step.py``."""
        shape = {"image-size": self.side, "group": self.group, "completion": self.tokens}
        words = [word for name, value in shape.items() for word in (f"--{name}", str(value))]
        return ["--checkpoint", str(self.checkpoint), *words, *["--free"] * self.free]

    @property
    def cells(self) -> str:
        """First columns of its row."""
        return f"{self.weights} | {self.side} | {self.group} | {f'up to {self.tokens}' if self.free else self.tokens}"


def measure(script: str, args: list[str]) -> Run:
    """One run in a process of its own."""
    done = subprocess.run([sys.executable, str(HERE / script), *args], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{script} {' '.join(args)}\n{done.stderr[-3000:]}")
    out: Run = json.loads(done.stdout.splitlines()[-1])
    return out


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def cases(args: argparse.Namespace, folder: Path) -> list[Case]:
    """All rows of the table; makes the random checkpoint."""
    from checkpoints import build, random_twin

    forced = (args.completion, False)
    if not args.checkpoint:
        kinds = [(args.size, build(folder / "random", args.size, args.vocabulary), forced)]
    else:
        kinds = [
            ("random", random_twin(args.checkpoint, folder / "random"), forced),
            ("trained", args.checkpoint, forced),
            ("trained", args.checkpoint, (args.longest, True)),
        ]
    return [
        Case(weights, path, side, group, *lengths)
        for weights, path, lengths in kinds
        for side in args.image_size
        for group in args.group
    ]


def turn(case: Case, folders: list[str], shared: list[str]) -> dict[str, Run]:
    """Ours, ours without speculation, and each peer, one after the other.

    Raises:
        SystemExit: a run failed, or the sides did not get the same prompts.
    """
    options = [*case.options, *shared]
    runs = {
        OURS: measure("grpo_step.py", options),
        PLAIN: measure("grpo_step.py", [*options, "--no-speculation"]),
    }
    for folder in folders or [""]:
        run = measure("trl_step.py", [*options, *(["--trl", folder] if folder else [])])
        if run["prompts"] != runs[OURS]["prompts"]:
            raise SystemExit(f"the prompts of TRL {run['versions']['trl']} are not ours")
        runs[f"TRL {run['versions']['trl']}"] = run
    return runs


def memory(run: Run) -> float:
    """MiB above the model at the peak."""
    return float(run["peak_rss_mib"] - run["before_mib"])


def cpu(run: Run) -> float:
    """CPU seconds of a step, for each token of a completion."""
    return float(run["step_cpu_s"] / run["mean_length"])


def ratios(turns: list[dict[str, Run]], over: str, under: str) -> str:
    """How many times as long a side takes for a sampled token as another one."""
    return spread([runs[over]["token_s"] / runs[under]["token_s"] for runs in turns])


def comparison(results: dict[Case, list[dict[str, Run]]], peers: list[str]) -> list[str]:
    """The table of ratios."""
    columns = ["weights", "picture, px", "G", "tokens", "prompt", "ours, s", f"{PLAIN}, s", f"{PLAIN} / ours"]
    columns.append("tokens a pass")
    for peer in peers:
        columns += [f"{peer}, s", f"{peer} / ours", f"{peer} / {PLAIN}", "CPU / ours", "our memory / its"]
    lines = [f"| {' | '.join(columns)} |", "|--" * len(columns) + "|"]
    for case, turns in results.items():
        cells = [case.cells, str(turns[0][OURS]["prompt_tokens"])]
        cells += [spread([runs[side]["step_s"] for runs in turns]) for side in (OURS, PLAIN)]
        cells.append(ratios(turns, PLAIN, OURS))
        cells.append(f"{median(runs[OURS]['tokens_per_pass'] for runs in turns):.2f}")
        for peer in peers:
            cells.append(spread([runs[peer]["step_s"] for runs in turns]))
            cells += [ratios(turns, peer, side) for side in (OURS, PLAIN)]
            cells.append(spread([cpu(runs[peer]) / cpu(runs[OURS]) for runs in turns]))
            cells.append(spread([memory(runs[OURS]) / memory(runs[peer]) for runs in turns]))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def phases(results: dict[Case, list[dict[str, Run]]]) -> list[str]:
    """The table of phases, and of what else explains the ratios."""
    columns = ["weights", "picture, px", "G", "tokens", "", *PHASES, "CPU s", "tokens of a completion", "MiB"]
    lines = [f"| {' | '.join(columns)} |", "|--" * len(columns) + "|"]
    for case, turns in results.items():
        for side in turns[0]:
            runs = [one[side] for one in turns]
            cells = [case.cells, side]
            cells += [f"{median(run['phases_s'].get(phase, 0.0) for run in runs):.2f}" for phase in PHASES]
            cells += [f"{median(run['step_cpu_s'] for run in runs):.2f}"]
            cells += [f"{median(run['mean_length'] for run in runs):.0f}", f"{median(map(memory, runs)):.0f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def machine() -> str:
    """Processor, cores, and how busy it is."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    load = f"; load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return f"{(names or [platform.processor()])[0]}, {os.cpu_count()} cores{load}"


def report(results: dict[Case, list[dict[str, Run]]], heading: str) -> str:
    """Everything that is printed."""
    first = next(iter(results.values()))[0]
    peers = [side for side in first if side not in (OURS, PLAIN)]
    versions = {**first[OURS]["versions"], **first[peers[0]]["versions"]}
    text = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "trl")
    turns = [len(runs) for runs in results.values()]
    about = f"{heading}; {text}, Python {platform.python_version()}; {min(turns)} to {max(turns)} turns"
    return "\n".join([about, "", *comparison(results, peers), "", *phases(results)])


def main() -> int:
    """Runs everything in turns and prints the tables."""
    from checkpoints import SIZES

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--checkpoint", type=Path, help="folder of a trained Qwen2-VL model")
    parser.add_argument("--size", choices=sorted(SIZES), default="small", help="of a random model, without one")
    parser.add_argument("--vocabulary", type=int, default=4160, help="of that model")
    parser.add_argument("--trl", action="append", default=[], metavar="FOLDER")
    parser.add_argument("--group", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--image-size", type=int, nargs="+", default=[140, 448], help="140 is the lab's")
    parser.add_argument("--completion", type=int, default=64)
    parser.add_argument("--longest", type=int, default=256)
    parser.add_argument("--turns", type=int, default=3)
    args, shared = parser.parse_known_args()
    command, begun = f"`python {' '.join(map(str, [Path(sys.argv[0]).name, *sys.argv[1:]]))}`", time.perf_counter()
    heading = f"{command}; {machine()}"
    results: dict[Case, list[dict[str, Run]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        rows = cases(args, Path(folder))
        work = [(number, case) for number in range(args.turns) for case in rows]
        try:
            for done, (number, case) in enumerate(work, 1):
                results.setdefault(case, []).append(turn(case, args.trl, shared))
                spent = time.perf_counter() - begun
                print(
                    f"turn {number + 1} of {args.turns}, {case.cells}: {spent / 60:.1f} min,"
                    f" about {spent / done * (len(work) - done) / 60:.1f} to go",
                    file=sys.stderr,
                )
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
        finally:
            if results:
                print(report(results, heading))
    return 0 if results and len(results) * args.turns == sum(map(len, results.values())) == len(work) else 1


if __name__ == "__main__":
    sys.exit(main())
