"""Two processes sample from a sharded model: gathered once a batch or layer by layer, and as one process does."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from contextlib import redirect_stderr
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from kvg.backbones.backbone import Backbone
from kvg.backbones.lora import LoRASettings
from kvg.errors import TrainingError
from kvg.rl.drafter import NGramDrafter
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings

WORLD, GROUP, LENGTH = 2, 3, 24
DEADLINE_S = 120
GATHERS = "_allgather_base_"


class Known(NGramDrafter):
    """Drafts what is known to be sampled, so that a pass takes several tokens."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def draft(self, completion, num_rows, room):
        given = list(completion)
        row = next(row for row in self.rows if row[: len(given)] == given)
        return row[len(given) : len(given) + min(room, self.max_draft)]


class Collectives(TorchDispatchMode):
    """Notes each collective and the number of elements that it fills, and each pass of a token loop."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.notes = backbone, []

    def __enter__(self):
        self._runs = {name: getattr(self.backbone, name) for name in ("decode", "verify")}
        for name, run in self._runs.items():
            setattr(self.backbone, name, partial(self._noted, run))
        return super().__enter__()

    def __exit__(self, *error):
        for name, run in self._runs.items():
            setattr(self.backbone, name, run)
        super().__exit__(*error)

    def _noted(self, run, tokens, *args):
        self.notes.append(("pass", len(tokens)))
        return run(tokens, *args)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d":
            self.notes.append(
                (func._schema.name.removeprefix("c10d::"), args[0].numel() if GATHERS in str(func) else 0)
            )
        return func(*args, **(kwargs or {}))


def build(lora):
    torch.manual_seed(0)  # of the adapters
    backbone = Backbone("tiny", lora=LoRASettings(r=2) if lora else None).eval()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.05, generator=generator)
    return backbone


def batch_of(backbone, samples):
    examples = [backbone.processor.encode(s, mode="direct", target=None) for s in samples]
    return backbone.processor.collate(examples, samples, pad_left=True)


def sample(backbone, batch, seed, drafter):
    return rollout(backbone, batch, SamplingSettings(LENGTH), GROUP, torch.Generator().manual_seed(seed), drafter)


def learn(backbone, batch, out):
    """Loss of a policy gradient in which all completions are alike good, and its gradients."""
    logprobs, _ = backbone.completion_logprobs(batch, out.tokens, out.completion_mask)
    loss = -logprobs.sum() / 100
    loss.backward()
    grads = {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}
    whole = {name: g.full_tensor() if isinstance(g, DTensor) else g for name, g in grads.items()}
    return float(loss.detach()), {name: grad.clone() for name, grad in whole.items()}


def texts(out):
    return [row[keep].tolist() for row, keep in zip(out.tokens, out.completion_mask, strict=True)]


@pytest.fixture(scope="module")
def samples(scenes):
    return scenes(4, sizes=[(84, 84)], snap_px=None)


@pytest.fixture(scope="module", params=[False, True], ids=["whole", "adapters"])
def alone(request, samples):
    """One process with the batches of both ranks. Those of the first end early; none runs into the limit, so that the
    last pass of the second takes drafts."""
    backbone = build(request.param)
    stored, ranks = backbone.end_token_ids, []
    for rank in range(WORLD):
        batch = batch_of(backbone, samples[2 * rank : 2 * rank + 2])
        backbone.end_token_ids = stored
        free = sample(backbone, batch, rank, NGramDrafter(max_draft=0))
        backbone.end_token_ids = tuple({int(row[2 + 12 * rank + place % 3]) for place, row in enumerate(free.tokens)})
        out = sample(backbone, batch, rank, NGramDrafter(max_draft=0))
        ranks.append((backbone.end_token_ids, out, *learn(backbone, batch, out)))
        backbone.zero_grad()
    lengths = [int(out.completion_mask.sum(1).max()) for _, out, *_ in ranks]
    assert 2 < lengths[0] < 8 < lengths[1] < LENGTH - 4
    return request.param, ranks


def in_process(rank, folder, work, arguments):
    torch.set_num_threads(1)
    with open(folder / f"log-{rank}.txt", "w") as stream, redirect_stderr(stream):
        code = 0
        try:
            dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
            mesh = init_device_mesh("cpu", (WORLD,), mesh_dim_names=("data_parallel",))["data_parallel"]
            torch.save(work(rank, mesh, *arguments), folder / f"out-{rank}.pt")
            dist.destroy_process_group()
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stderr.flush()
    os._exit(code)


def in_two_processes(folder, work, *arguments):
    """What ``work(rank, mesh, *arguments)`` returns in each of two processes."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=in_process, args=(rank, folder, work, arguments)) for rank in range(WORLD)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(DEADLINE_S)
    stuck = [process for process in processes if process.is_alive()]
    for process in stuck:
        process.kill()
        process.join()
    said = "\n".join((folder / f"log-{rank}.txt").read_text() for rank in range(WORLD))
    assert not stuck, f"still running after {DEADLINE_S} s\n{said}"
    assert [process.exitcode for process in processes] == [0] * WORLD, said
    return [torch.load(folder / f"out-{rank}.pt", weights_only=False) for rank in range(WORLD)]


def two_rounds(rank, mesh, lora, gather, samples, ends, known):
    """Twice a rollout and a step of gradients; the first rank has no drafts, so that its passes are of another kind."""
    backbone = build(lora)
    backbone.shard(mesh, gather)
    backbone.end_token_ids = ends[rank]
    batch = batch_of(backbone, samples[2 * rank : 2 * rank + 2])
    drafter = Known(known[rank]) if rank else NGramDrafter(max_draft=0)
    rounds = []
    for _ in range(2):
        batch = backbone.with_visual_tokens(batch)  # as stage 2: the step begins with the language model's first layer
        with Collectives(backbone) as seen:
            out = sample(backbone, batch, rank, drafter)
        rounds.append((out, seen.notes, *learn(backbone, batch, out)))
        backbone.zero_grad()
    return rounds, backbone.shards.once


@pytest.mark.parametrize("gather", ["once", "layer", "auto"])
def test_processes_sample_and_learn_as_one_does(gather, alone, samples, tmp_path):
    lora, ranks = alone
    known, ends = [texts(out) for _, out, *_ in ranks], [end for end, *_ in ranks]
    results = in_two_processes(tmp_path, two_rounds, lora, gather, samples, ends, known)
    gradients = {name: sum(grads[name] for *_, grads in ranks) / WORLD for name in ranks[0][-1]}
    for rank, (rounds, once) in enumerate(results):
        assert once == (gather != "layer")
        for out, notes, loss, grads in rounds:
            assert texts(out) == known[rank]
            torch.testing.assert_close(out.logprobs, ranks[rank][1].logprobs, atol=5e-5, rtol=0)
            assert loss == pytest.approx(ranks[rank][2], abs=1e-4)
            assert grads.keys() == gradients.keys()
            for name, grad in gradients.items():
                torch.testing.assert_close(grads[name], grad, atol=1e-4, rtol=1e-3)
            check_collectives(gather, notes)
    passes = [sum(name == "pass" for name, _ in rounds[0][1]) for rounds, _ in results]
    longest = [max(map(len, rows)) for rows in known]
    if gather == "layer":  # in step with the process that needs more
        assert passes[0] == passes[1]
    else:
        assert passes[0] == longest[0] - 1
    assert passes[1] < longest[1] - 1  # with drafts


def check_collectives(gather, notes):
    """In the token loop of ``once`` there is none; layer by layer each pass gathers, and asks who goes on."""
    first = next(place for place, (name, _) in enumerate(notes) if name == "pass")
    names = [name for name, _ in notes]
    before, loop = names[:first], names[first:]
    assert GATHERS in before
    if gather == "layer":
        assert loop.count(GATHERS) >= loop.count("pass")
        assert loop.count("allreduce_") >= loop.count("pass")
    else:
        assert [name for name in loop if name != "pass"] == ["allreduce_"]  # whether all logits were finite


def gathered_sizes(rank, mesh, samples):
    """Elements that are gathered for a rollout, with and without adapters, and those of all parameters."""
    sizes = {}
    for lora in (False, True):
        backbone = build(lora)
        of_all, trained = (
            sum(p.numel() for p in backbone.parameters() if p.requires_grad or every) for every in (1, 0)
        )
        backbone.shard(mesh, "once")
        with Collectives(backbone) as seen:
            sample(backbone, batch_of(backbone, samples[:2]), 0, None)
        sizes[lora] = (sum(size for name, size in seen.notes if name == GATHERS), of_all, trained)
    return sizes


def test_a_frozen_base_is_gathered_never(samples, tmp_path):
    for sizes in in_two_processes(tmp_path, gathered_sizes, samples):
        gathered, of_all, _ = sizes[False]
        assert of_all <= gathered < 1.01 * of_all + 2000  # padded to a multiple of the processes
        gathered, of_all, trained = sizes[True]
        assert trained <= gathered < 1.1 * trained < 0.1 * of_all


def mixed_rounds(rank, mesh, gather, samples):
    """Gradients of two parts of an update, after sampling in the same autocast context, as Lightning has it."""
    backbone = build(False)
    if mesh is not None:
        backbone.shard(mesh, gather)
    ranks = range(WORLD) if mesh is None else [rank]
    batches = [batch_of(backbone, samples[2 * one : 2 * one + 2]) for one in ranks]
    tokens = torch.arange(2 * GROUP * LENGTH).view(2 * GROUP, LENGTH) % 90
    mask = torch.ones_like(tokens, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        sample(backbone, batches[0], rank, NGramDrafter(max_draft=0))
        for batch in batches:
            for _ in range(2):
                (-backbone.completion_logprobs(batch, tokens, mask)[0].sum() / 100).backward()
    grads = {name: p.grad for name, p in backbone.named_parameters() if p.requires_grad}
    return {n: g.full_tensor() if isinstance(g, DTensor) else g for n, g in grads.items() if g is not None}


@pytest.mark.parametrize("gather", ["once", "layer"])
def test_gradients_under_autocast_reach_their_shares(gather, samples, tmp_path):
    alone = mixed_rounds(0, None, gather, samples)
    for grads in in_two_processes(tmp_path, mixed_rounds, gather, samples):
        assert grads.keys() == alone.keys()
        for name, grad in grads.items():
            assert (grad - alone[name] / WORLD).norm() < 0.02 * (alone[name] / WORLD).norm() + 1e-4, name


def frozen_scores(rank, mesh, samples):
    """What a frozen copy says in each of three passes, what it holds whole after each, and what one process says."""
    batch = batch_of(build(False), samples[2 * rank : 2 * rank + 2])
    tokens = torch.arange(2 * GROUP * LENGTH).view(2 * GROUP, LENGTH) % 90
    mask = torch.arange(LENGTH).expand_as(tokens) < 3 + torch.arange(len(tokens))[:, None]
    seen = []
    for sharded in (False, True):
        copy = build(False).requires_grad_(False)
        if sharded:
            copy.shard(mesh, "layer")
        with torch.no_grad():
            for _ in range(3):
                scores, _ = copy.completion_logprobs(copy.with_visual_tokens(batch), tokens, mask)
                seen.append((scores, [name for name, p in copy.named_parameters() if not isinstance(p, DTensor)]))
    return seen[0][0], seen[3:]


def test_a_frozen_copy_says_the_same_and_holds_nothing_whole_between_passes(samples, tmp_path):
    for alone, passes in in_two_processes(tmp_path, frozen_scores, samples):
        assert alone.abs().sum() > 100
        for scores, whole in passes:
            torch.testing.assert_close(scores, alone, atol=0, rtol=0)
            assert whole == []


def spoilt(rank, mesh, samples):
    """Logits that are NaN in the second process alone."""
    backbone = build(False)
    backbone.shard(mesh, "once")
    if rank:
        backbone.prefill, prefill = lambda *args: spoil(*prefill(*args)), backbone.prefill
    try:
        sample(backbone, batch_of(backbone, samples[:2]), 0, None)
    except TrainingError as error:
        return str(error)
    return None


def spoil(logits, state):
    return logits * torch.nan, state


def test_logits_that_are_not_finite_in_one_process_end_both(samples, tmp_path):
    first, second = in_two_processes(tmp_path, spoilt, samples)
    assert "logits are not finite in another process" in first
    assert "logits are not finite at token 1 of completion 1 of 6" in second
