"""One command for a GPU: all tests marked ``gpu``, then whole steps of both stages with random models; one JSON.

    python tests/benchmarks/gpu.py --out build/gpu.json          # `make gpu`: one card of 80 GB, ten minutes, offline
    python tests/benchmarks/gpu.py --device cpu --sizes tiny     # the same way, to try it without a GPU

Stage 2 is timed with the prompt shared and repeated, and beside TRL's GRPOTrainer where TRL is installed; stage 1
beside transformers' Trainer. Each is a process of its own. The JSON is written after each of them, so what
was measured is there if a later one fails or the time is over.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Size:
    """A model and the work that it is timed on.

    Attributes:
        build: arguments of ``checkpoints.py``.
        shared: arguments of both stages.
        stage_1: of ``sft_step.py``.
        stage_2: of ``grpo_step.py`` and ``trl_step.py``.
    """

    build: str
    shared: str
    stage_1: str
    stage_2: str


_GPU = "--dtype bfloat16 --image-size 448"
SIZES = {
    "tiny": Size(
        "--size small --layers 2", "--image-size 112", "--batch 2 --steps 1",
        "--group 2 --completion 4 --steps 1 --warmup 1 --threads 1",
    ),
    "2b": Size(
        "--size 2b --vocabulary 151936 --dtype bfloat16", _GPU, "--batch 8 --steps 5",
        "--group 8 --prompts 2 --completion 256 --steps 3 --warmup 1",
    ),
    "7b": Size(
        "--size 7b --vocabulary 151936 --dtype bfloat16", f"{_GPU} --lora 16", "--batch 4 --steps 4 --recompute",
        "--group 8 --prompts 1 --completion 256 --steps 2 --warmup 1",
    ),
}  # fmt: skip


class Clock:
    """The time that is left of a limit."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes

    @property
    def left(self) -> float:
        """Seconds, at least 0."""
        return max(0.0, self.end - time.monotonic())


def run(words: list[str], clock: Clock) -> dict[str, Any]:
    """Runs a command; what it printed and how long it took, or why it failed."""
    start = time.monotonic()
    if clock.left < 5:
        return {"failed": "no time was left"}
    try:
        done = subprocess.run(
            [sys.executable, *words], cwd=ROOT, env={**os.environ, **OFFLINE}, capture_output=True, text=True,
            timeout=clock.left,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"failed": "did not end in the time that was left"}
    found: dict[str, Any] = {"seconds": round(time.monotonic() - start, 1), "status": done.returncode}
    if done.returncode:
        found["failed"] = (done.stderr or done.stdout).strip()[-2000:]
    return {**found, "printed": done.stdout}


def tests(clock: Clock, folder: Path) -> dict[str, Any]:
    """Runs the tests marked ``gpu``; numbers, and the names of those that failed."""
    files = sorted(str(path) for path in (ROOT / "tests").rglob("test_*.py") if marks_gpu(path))
    report = folder / "tests.xml"
    found = run(["-m", "pytest", "-q", "-m", "gpu", f"--junitxml={report}", *files], clock)
    if not report.is_file():
        return {"failed": found.get("failed", "left no report")}
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    kinds = {kind: [name(case) for case in cases if case.find(kind) is not None] for kind in ("failure", "error")}
    failed = kinds["failure"] + kinds["error"]
    skipped = sum(case.find("skipped") is not None for case in cases)
    counts = {"passed": len(cases) - len(failed) - skipped, "skipped": skipped, "failed_tests": failed}
    return {**counts, "seconds": found.get("seconds"), **({"failed": "some tests failed"} if failed else {})}


def marks_gpu(path: Path) -> bool:
    """Whether a file has tests for a GPU."""
    text = path.read_text()
    return "mark.gpu" in text or "tests.devices" in text


def name(case: ElementTree.Element) -> str:
    """Of a test."""
    return f"{case.get('classname')}::{case.get('name')}"


def about(device: str) -> dict[str, Any]:
    """Versions, and the card."""
    import lightning
    import torch
    import transformers

    versions = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "lightning": lightning.__version__,
    }
    found: dict[str, Any] = {"device": device, "versions": versions, "python": sys.version.split()[0]}
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        found["gpu"] = {
            "name": torch.cuda.get_device_name(), "capability": list(torch.cuda.get_device_capability()),
            "memory_mib": total // 2**20, "free_mib": free // 2**20, "cuda": torch.version.cuda,
        }  # fmt: skip
    return found


def ways(size: Size, checkpoint: Path, device: str) -> dict[str, list[str]]:
    """Commands that each print the figures of one way as JSON, by name."""
    common = ["--checkpoint", str(checkpoint), "--device", device, *size.shared.split()]
    stage_1 = [str(HERE / "sft_step.py"), *common, *size.stage_1.split()]
    precision = ["--precision", "bf16-true"] if "bfloat16" in size.shared else []
    ours = [str(HERE / "grpo_step.py"), *common, *size.stage_2.split(), "--freeze-vision", *precision]
    found = {
        "stage 2, shared prompt": ours,
        "stage 2, fixed shapes": [*ours, "--decoding", "fixed_shape"],
        "stage 2, repeated prompt": [*ours, "--plain"],
        "stage 1, packed": [*stage_1, "--way", "packed"],
        "stage 1, transformers Trainer": [*stage_1, "--way", "trainer"],
    }
    if find_spec("trl"):
        found["stage 2, TRL"] = [str(HERE / "trl_step.py"), *common, *size.stage_2.split()]
    return found


def figures(words: list[str], clock: Clock) -> dict[str, Any]:
    """What a way has measured, or why there is nothing."""
    found = run(words, clock)
    if "failed" in found:
        return {"failed": found["failed"]}
    measured: dict[str, Any] = json.loads(found["printed"].splitlines()[-1])
    kept = ("step_s", "steps_s", "token_s", "tokens_per_s", "padding", "phases_s", "peak_gpu_mib", "kernels",
            "tokens_per_pass", "prompt_tokens", "versions")  # fmt: skip
    return {"seconds": found["seconds"], **{key: measured[key] for key in kept if key in measured}}


def failures(found: dict[str, Any]) -> list[str]:
    """Names of all parts that failed."""
    steps = [f"{size}: {way}" for size, own in found["steps"].items() for way, one in own.items() if "failed" in one]
    return (["tests"] if "failed" in found.get("tests", {}) else []) + steps


def main() -> int:
    """Runs everything and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sizes", default="2b,7b", help=f"of {', '.join(SIZES)} (default 2b,7b)")
    parser.add_argument("--out", type=Path, default=ROOT / "build/gpu.json", help="default build/gpu.json")
    parser.add_argument("--minutes", type=float, default=10, help="limit of the whole (default 10)")
    parser.add_argument("--no-tests", action="store_true", help="times alone")
    args = parser.parse_args()
    sizes = [size for size in args.sizes.split(",") if size]
    if unknown := [size for size in sizes if size not in SIZES]:
        parser.error(f"--sizes: {unknown[0]} is none of {', '.join(SIZES)}")
    if args.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            parser.error("no CUDA device is here; --device cpu --sizes tiny tries the command without one")
    clock, found = Clock(args.minutes), {**about(args.device), "steps": {size: {} for size in sizes}}

    def keep() -> None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        part = args.out.with_suffix(".part")
        part.write_text(json.dumps(found, indent=1) + "\n")
        part.replace(args.out)

    with tempfile.TemporaryDirectory(prefix="kvg-gpu-") as scratch:
        folder = Path(scratch)
        if not args.no_tests:
            found["tests"] = tests(clock, folder)
            print(f"tests: {json.dumps(found['tests'])}", flush=True)
            keep()
        for size in sizes:
            words = SIZES[size].build.split()
            built = run(
                [str(HERE / "checkpoints.py"), "--out", str(folder / size), "--device", args.device, *words], clock
            )
            if "failed" in built:
                found["steps"][size]["build"] = {"failed": built["failed"]}
                keep()
                continue
            for way, command in ways(SIZES[size], folder / size, args.device).items():
                found["steps"][size][way] = figures(command, clock)
                print(f"{size}, {way}: {found['steps'][size][way].get('step_s', 'failed')} s a step", flush=True)
                keep()
    bad = failures(found)
    print(f"wrote {args.out}" + (f"; failed: {', '.join(bad)}" if bad else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
