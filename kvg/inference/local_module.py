"""The module of ``LocalClient``: a backbone under a Lightning Trainer, which supports all training strategies."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback

from kvg.backbones.backbone import Backbone
from kvg.backbones.family import Family
from kvg.backbones.find_family import find_family
from kvg.backbones.sharding import gather_of
from kvg.config.search_path import import_class
from kvg.config.settings import instantiate
from kvg.errors import ConfigError
from kvg.inference.batch_runner import BatchRunner, Record, RequestJob
from kvg.inference.engine import BackboneEngine
from kvg.inference.prepared import PreparedBatch
from kvg.inference.request import Answers, Request
from kvg.rl.sampling import SamplingSettings

_NOISE: Final = (
    r".*does not have many workers",  # small pictures are decoded faster than they cross a queue
    r".*`srun` command is available on your system but is not used",  # one process on a login node is a choice
    r".*predict returned None",  # answers go to files
    r".*`IterableDataset` has `__len__` defined",  # and knows its workers
    r".*LeafSpec.*is deprecated",  # Lightning 2.6 beside newer torch; nothing a user can do
)


class LocalModule(L.LightningModule):
    """Answers the unanswered batches of a job, which are distributed over the processes.

    Args:
        backbone: loaded and frozen.
        sampling: sampling settings.
    """

    def __init__(self, backbone: Backbone, sampling: SamplingSettings) -> None:
        super().__init__()
        self.backbone = backbone
        self.runner = BatchRunner(BackboneEngine(backbone, sampling))
        self.job: RequestJob | None = None

    def configure_callbacks(self) -> Sequence[Callback]:
        """The runner."""
        return [self.runner]

    def configure_model(self) -> None:
        """Shards the backbone where the strategy brings a device mesh (FSDP2); runs again for each job."""
        mesh = self.device_mesh
        if mesh is not None and not self.backbone.sharded:
            self.backbone.shard(mesh["data_parallel"], gather_of(self.trainer.strategy))

    def predict_dataloader(self) -> Iterable[Any]:
        """This process's share of the batches of ``job``."""
        if self.job is None:
            raise RuntimeError("set a job before predict")
        todo = self.trainer.strategy.broadcast(self.job.units.left())  # the folder may look different on a node
        return self.runner.begin(self.job, todo)

    def predict_step(self, batch: PreparedBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Answers a batch and keeps the answers.

        Raises:
            TrainingError: logits are not finite.
        """
        self.runner.step(batch, batch_idx)

    def on_predict_end(self) -> None:
        """Waits for the other processes.

        Raises:
            TrainingError: logits were not finite in one of the processes.
        """
        self.runner.finish()


def text_record(request: Request, answers: Answers) -> Record:
    """Texts, their lengths in tokens, and whether they are truncated."""
    completions = answers.completions
    return {
        "texts": [one.text for one in completions],
        "tokens": [one.num_tokens for one in completions],
        "cut": [one.finish_reason == "length" for one in completions],
    }


def build_backbone(setting: Mapping[str, Any]) -> Backbone:
    """Loads a frozen model.

    Args:
        setting: ``{class_path, init_args}``.

    Raises:
        ConfigError: there is no such class or checkpoint, or they do not belong together.
    """
    class_path, init_args = str(setting.get("class_path", "")), dict(setting.get("init_args") or {})
    kind = import_class("backbone", class_path)
    if not (isinstance(kind, type) and issubclass(kind, Backbone)):
        raise ConfigError("backbone.class_path", f"'{class_path}' is no backbone; give a subclass of Backbone")
    init_args["family"] = _named_family(init_args)
    backbone: Backbone = instantiate({"class_path": class_path, "init_args": init_args}, "backbone")
    return backbone.requires_grad_(False).eval()


def family_of(setting: Mapping[str, Any]) -> Family:
    """The family of a backbone; reads the checkpoint's settings alone.

    Args:
        setting: ``{class_path, init_args}`` of the backbone.

    Raises:
        ConfigError: the checkpoint cannot be read, or is of another family than its config says, or of none.
    """
    init_args = setting.get("init_args") or {}
    return find_family(str(init_args["checkpoint"]), _named_family(init_args))


def _named_family(init_args: Mapping[str, Any]) -> Family | None:
    family = init_args.get("family")
    if not isinstance(family, Mapping):
        return family
    named: Family = instantiate(family, "backbone.init_args.family", ("see", "tower"))
    return named


def build_trainer(settings: Mapping[str, Any]) -> L.Trainer:
    """A Trainer for inference, without logs, checkpoints and warnings that do not apply.

    Args:
        settings: of the Trainer; a strategy may be ``{class_path, init_args}``.

    Raises:
        ConfigError: a setting cannot work here.
    """
    for message in _NOISE:
        warnings.filterwarnings("ignore", message)
    given = {"accelerator": "auto", "devices": 1, **settings}
    if isinstance(given.get("strategy"), Mapping):
        given["strategy"] = instantiate(given["strategy"], "trainer.strategy")
    try:
        return L.Trainer(
            **given,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        raise ConfigError("trainer", f"{' '.join(str(error).split())}; correct it") from error
