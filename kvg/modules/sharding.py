"""FSDP2 over all processes of a run, whatever their number."""

from __future__ import annotations

from lightning.pytorch.strategies import ModelParallelStrategy


class FSDP2Strategy(ModelParallelStrategy):
    """Lightning's ``ModelParallelStrategy`` with data parallelism alone.

    There, ``data_parallel_size: auto`` is the number of *nodes*, and the processes of a node share layers; a config
    would have to name the number of processes, and could not run on another number of GPUs.

    Args:
        save_distributed_checkpoint: a folder that every process writes a part of; otherwise one file, gathered by the
            first process.
    """

    def __init__(self, save_distributed_checkpoint: bool = True) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=save_distributed_checkpoint)

    def setup_environment(self) -> None:
        """Lays the mesh over all processes."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()
