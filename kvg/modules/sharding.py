"""FSDP2 over all processes of a run."""

from __future__ import annotations

from typing import get_args

from lightning.pytorch.strategies import ModelParallelStrategy

from kvg.backbones.sharding import Gather
from kvg.ranges import check_choice


class FSDP2Strategy(ModelParallelStrategy):
    """Lightning's ``ModelParallelStrategy`` with data parallelism only.

    In Lightning, ``data_parallel_size: auto`` is the number of *nodes*, with tensor parallelism within a node. A config
    would have to contain the number of processes, and would not run on another number of GPUs.

    Args:
        save_distributed_checkpoint: save a folder to which every process writes its shard; otherwise one file that the
            first process gathers.
        gather: how weights are gathered for sampling, see ``kvg.backbones.sharding.Shards``.

    Raises:
        ConfigError: there is no such way to gather.
    """

    def __init__(self, save_distributed_checkpoint: bool = True, gather: Gather = "auto") -> None:
        check_choice("trainer.strategy.gather", gather, get_args(Gather))
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=save_distributed_checkpoint)
        self.gather = gather

    def setup_environment(self) -> None:
        """Sets the data-parallel size to the number of processes."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()
