"""A backbone in shards (FSDP2): gathered unit by unit where it learns, and once for each batch where it samples."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any, Final, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from kvg.backbones.stored_weights import StoredWeights

log = logging.getLogger(__name__)
Gather = Literal["auto", "once", "layer"]
# Entry points that run the model. A pass through one that is missing here would end with another unit than the root;
# the backward pass that follows prefetches the unit of the last pass, so processes with different ones would hang.
RUN_METHODS: Final = ("prefill", "decode", "verify", "completion_logprobs", "label_loss", "with_visual_tokens")
LEARNING: Final = ("completion_logprobs", "label_loss", "with_visual_tokens")
SHARE: Final = 0.7  # of the memory; keys, values and activations need the rest


class Shards:
    """A backbone that FSDP2 shards: each unit for itself, the rest as the root, gathered at each entry point.

    The root stays gathered until the backward pass; where nothing is trained, it is free again after each entry point.

    Args:
        root: the backbone.
        units: see ``kvg.backbones.family.Family.fsdp_units``.
        mesh: of devices, with one dimension.
        gather: for sampling: ``once`` for each batch, ``layer`` by layer for each token; ``auto`` is ``once`` where
            ``fits`` says so of the process with the least memory.
        base: parameters that never change; with ``once`` each process keeps them whole for the run.

    Attributes:
        once: whether sampling gathers all weights once for each batch.
        whole: whether they are gathered now, so that each process runs the model as often as it likes.
    """

    def __init__(
        self, root: nn.Module, units: Sequence[nn.Module], mesh: Any, gather: Gather, base: Iterable[nn.Parameter] = ()
    ) -> None:
        self.once = _all_fit(root, mesh) if gather == "auto" else gather == "once"
        self.whole = False
        kept = set(base) if self.once else set()
        self._units = [fully_shard(unit, mesh=mesh, ignored_params=kept) for unit in units]
        # FSDP2 leaves the root gathered for a backward pass, which a frozen model (a reference) never has.
        frees = None if any(p.requires_grad for p in root.parameters()) else True
        self._root = fully_shard(root, mesh=mesh, ignored_params=kept, reshard_after_forward=frees)
        cast_each_time(root)
        for name in RUN_METHODS:
            register_fsdp_forward_method(root, name)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """A batch of sampling: with ``once`` the weights are whole in this block, and none is gathered within it.

        All processes have to enter it; each may leave it when it likes. FSDP2 remembers the passes of this block for
        the next backward pass, whose prefetching they would mislead, so they are forgotten here.
        """
        if self.once:
            for module in (self._root, *self._units):
                module.unshard()
            self._root.set_reshard_after_forward(False)
            self.whole = True
        try:
            yield
        finally:
            if self.once:
                self.whole = False
                for unit in self._units:
                    unit.set_reshard_after_forward(True, recurse=False)
                for module in (self._root, *self._units):
                    module.reshard()
            torch.clear_autocast_cache()  # of a whole model in half precision
            # Older versions of torch lack it; there, the last pass that is remembered is the root's in each process.
            getattr(self._root, "reset_iter_state", lambda: None)()


def cast_each_time(root: nn.Module) -> None:
    """Has autocast keep no casts of weights where a backbone in shards learns or scores.

    Kept ones are a whole model in half precision beside the shares. And one that an earlier pass has made, be it of
    sampling, hands its gradient on after FSDP2 has sent those of its unit: it would only count in the next pass.
    """
    for name in LEARNING:
        setattr(root, name, _without_kept_casts(getattr(root, name)))


def _without_kept_casts(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **settings: Any) -> Any:
        kept = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)
        try:
            return method(*args, **settings)
        finally:
            torch.set_autocast_cache_enabled(kept)

    return call


class Shardable(nn.Module):
    """A model whose weights processes may share.

    Attributes:
        shards: how they share them; None where each process has its own.
        stored: files of a model that has been built without weights; None where it has them.
    """

    shards: Shards | None = None
    stored: StoredWeights | None = None

    def read_shares(self, model: nn.Module, mesh: Any) -> None:
        """Has this process read its rows of all weights, where the model has been built without."""
        if self.stored is not None:
            kind = mesh.device_type
            device = torch.device(kind, torch.accelerator.current_device_index()) if kind != "cpu" else "cpu"
            self.stored.fill(self, model, torch.device(device))
            self.stored = None

    @property
    def sharded(self) -> bool:
        """Whether processes share the weights."""
        return self.shards is not None

    @property
    def in_step(self) -> bool:
        """Whether processes have to run the model equally often, because each pass gathers weights from all."""
        return self.shards is not None and not self.shards.whole

    def gathered(self) -> AbstractContextManager[None]:
        """See ``kvg.rl.completions.Policy.gathered``."""
        return nullcontext() if self.shards is None else self.shards.gathered()

    def any_rank_active(self, active: bool) -> bool:
        """See ``kvg.rl.completions.Policy.any_rank_active``."""
        return any_rank(active, next(self.parameters()).device) if self.in_step else active


def gather_of(strategy: Any) -> Gather:
    """The setting of a Trainer's strategy; ``auto`` of one that has none."""
    gather: Gather = getattr(strategy, "gather", "auto")
    return gather


def fits(size: float, num_processes: int, memory: float) -> bool:
    """Whether a process has room for all weights while it samples.

    It then holds them, and its shares of four more of their size: of the weights themselves, those of a reference, and
    two moments of AdamW. The sum may take ``SHARE`` of the memory. It depends on the machine and the model alone, so
    that a run that is resumed samples as before.

    Args:
        size: of all weights, in bytes.
        num_processes: that share them.
        memory: of the device, in bytes.

    >>> fits(16.6e9, 8, 80e9), fits(33.2e9, 8, 80e9), fits(33.2e9, 2, 80e9)  # 7B in bfloat16 and float32, 80 GB a GPU
    (True, True, False)
    """
    return size * (1 + 4 / num_processes) <= SHARE * memory


def _all_fit(root: nn.Module, mesh: Any) -> bool:
    """The same answer in all processes."""
    size, num = sum(p.numel() * p.element_size() for p in root.parameters()), mesh.size()
    if mesh.device_type == "cuda":
        memory = torch.cuda.mem_get_info()[1]
    else:  # shared by the processes; and a token pass copies the weights there (kvg.backbones.token_pass)
        memory, size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // num, 2 * size
    least = torch.tensor(float(memory), dtype=torch.float64, device=mesh.device_type)
    dist.all_reduce(least, dist.ReduceOp.MIN, group=mesh.get_group())
    once = fits(size, num, float(least))
    way = "gathers all weights once a batch" if once else "gathers each layer for each token"
    log.info("sampling %s: %.1f GB of weights, %.1f GB of memory a process", way, size / 1e9, float(least) / 1e9)
    return once


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether any process calls this with True; all of them have to call it."""
    shared = torch.tensor(int(flag), device=device)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return bool(shared.item())
