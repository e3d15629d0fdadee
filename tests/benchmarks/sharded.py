"""Sampling from a model that two processes share (FSDP2, CPU): both ways of gathering, in turns, and with drafts.

python tests/benchmarks/sharded.py runs/demo/cot_sft/export runs/demo/data/filtered --prompts 2 --group 4

Prints wall seconds of a batch until the slower process has it, CPU seconds of both processes, and ratios. All tokens
have to be the same. Between two processes on one machine a gather is a copy; over a network it takes longer.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

sys.path.insert(0, str(Path(__file__).parent))
from compare_grpo import spread

from kvg.backbones.backbone import Backbone
from kvg.rl.drafter import NGramDrafter
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings
from kvg.shards.reader import ShardFolder

WORLD = 2
WAYS = {"layer": ("layer", 0), "layer, drafts": ("layer", 4), "once": ("once", 0), "once, drafts": ("once", 4)}


def run(rank: int, store: str, args: argparse.Namespace) -> None:
    """One process; the first one prints."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD)
    mesh = init_device_mesh("cpu", (WORLD,))
    models = {gather: Backbone(args.checkpoint).eval() for gather in ("layer", "once")}
    for gather, model in models.items():
        model.shard(mesh, gather)
    samples = [sample for part in ShardFolder(args.shards).parts() for _, sample in part.read()]
    own, settings = iter(samples[rank::WORLD]), SamplingSettings(args.max_new_tokens, args.temperature)
    figures: dict[str, list[torch.Tensor]] = {way: [] for way in WAYS}
    for number in range(args.batches):
        chosen = list(islice(own, args.prompts))
        tokens = []
        for way, (gather, max_draft) in WAYS.items():
            model = models[gather]
            examples = [model.processor.encode(sample, mode="think", target=None) for sample in chosen]
            batch = model.processor.collate(examples, chosen, pad_left=True)
            dist.barrier()
            start, cpu = time.perf_counter(), time.process_time()
            generator = torch.Generator().manual_seed(number)
            out = rollout(model, batch, settings, args.group, generator, NGramDrafter(max_draft=max_draft))
            cost = torch.tensor([time.perf_counter() - start, time.process_time() - cpu])
            dist.all_reduce(cost[0], dist.ReduceOp.MAX)
            dist.all_reduce(cost[1])
            figures[way].append(cost)
            tokens.append(out.tokens)
        if rank == 0:
            seconds = ", ".join(f"{way} {float(costs[-1][0]):.2f}" for way, costs in figures.items())
            print(f"batch {number}: {seconds} s", flush=True)
        assert all(one.equal(tokens[0]) for one in tokens), "tokens differ"
    if rank == 0:
        plain = figures["layer"]
        for way, costs in figures.items():
            wall, cpu_s = ([float(cost[at]) for cost in costs] for at in (0, 1))
            ratios = [float(one[0] / other[0]) for one, other in zip(plain, costs, strict=True)]
            print(f"{way:14} wall {spread(wall)} s, CPU {spread(cpu_s)} s; layer / this {spread(ratios)}", flush=True)
    dist.destroy_process_group()


def main() -> int:
    """Starts both processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("shards")
    parser.add_argument("--prompts", type=int, default=2, help="of a batch, in each process")
    parser.add_argument("--group", type=int, default=4, help="completions of each")
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        processes = [context.Process(target=run, args=(rank, f"{folder}/store", args)) for rank in range(WORLD)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    return max(abs(process.exitcode or 0) for process in processes)


if __name__ == "__main__":
    raise SystemExit(main())
