"""A backbone that answers requests under a Lightning Trainer, so that every strategy that trains also answers."""

from __future__ import annotations

import hashlib
import io
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from kvg.backbones.answers import completion_texts
from kvg.backbones.backbone import Backbone
from kvg.backbones.processor import ChatProcessor
from kvg.config.search_path import import_class
from kvg.config.settings import instantiate
from kvg.errors import ConfigError, DataError
from kvg.inference.request import Request
from kvg.inference.request_batches import in_batches, mark_of
from kvg.modules.guard import SharedFault
from kvg.rl.rollout import SamplingSettings, rollout
from kvg.work.batch_files import BatchFiles, share_of


@dataclass(frozen=True)
class Job:
    """What one run over requests is about.

    Attributes:
        requests: all, also those that have been answered.
        batch_size: requests in a batch.
        files: where answers are kept.
        settings: that the answers depend on, for the files' marks.
        seed: of this run; that of a batch is made of it and the batch's number.
        num_workers: processes that prepare batches; 0 prepares them in this one.
        advance: called with the number of requests that have been answered, by all processes together.
    """

    requests: Iterable[Request]
    batch_size: int
    files: BatchFiles
    settings: str
    seed: str
    num_workers: int
    advance: Callable[[int], Any]


class AnsweringModule(L.LightningModule):
    """Answers the batches that are not answered yet, in turns with the other processes.

    Args:
        backbone: loaded and frozen.
        sampling: how tokens are drawn.
    """

    def __init__(self, backbone: Backbone, sampling: SamplingSettings) -> None:
        super().__init__()
        self.backbone, self.sampling = backbone, sampling
        self.job: Job | None = None
        self._todo: list[int] = []
        self._sigterm: Any = None
        self._fault = SharedFault()

    def begin(self, job: Job) -> None:
        """Takes on a job; the next ``predict`` does it."""
        self.job, self._sigterm = job, signal.getsignal(signal.SIGTERM)

    def configure_model(self) -> None:
        """Shards the backbone where the strategy brings a device mesh (FSDP2); runs again for each job."""
        mesh = self.device_mesh
        if mesh is not None and not self.backbone.sharded:
            self.backbone.shard(mesh["data_parallel"])

    def predict_dataloader(self) -> DataLoader[Any]:
        """This process's share of the batches."""
        job = self._job()
        trainer = self.trainer
        self._todo = trainer.strategy.broadcast(job.files.missing())  # the folder may look different from another node
        share = share_of(self._todo, trainer.global_rank, trainer.world_size)
        prepared = PreparedBatches(job, self.backbone.processor, share)
        return DataLoader(prepared, batch_size=None, num_workers=job.num_workers)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Moves the prompts; the rest is for this process alone."""
        return {**batch, "inputs": batch["inputs"].to(device)}

    def on_predict_start(self) -> None:
        """Takes SIGTERM back from Lightning, which waits for the end of a run; here it may end at once."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._sigterm)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Answers a batch and keeps the answers.

        Raises:
            TrainingError: logits are not finite.
        """
        if self._fault.error is not None:  # what is left would be answered no better
            return
        job = self._job()
        wanted: list[int] = batch["wanted"]
        seed = hashlib.sha256(f"{job.seed}/{batch['number']}".encode()).digest()
        # On the CPU whatever the device: the same shots everywhere.
        generator = torch.Generator().manual_seed(int.from_bytes(seed[:7], "big"))
        group = max(wanted, default=1)
        alone = self.trainer.world_size == 1 or self.backbone.sharded
        out = None
        with self._fault.kept(alone):
            out = rollout(self.backbone, batch["inputs"], self.sampling, group, generator)
        if out is None:
            return
        texts = completion_texts(self.backbone, out.tokens, out.completion_mask)
        lengths, cut = out.completion_mask.sum(1).tolist(), out.truncated.tolist()
        answered = iter(
            {"texts": texts[at : at + num], "tokens": lengths[at : at + num], "cut": cut[at : at + num]}
            for at, num in zip(range(0, len(texts), group), wanted, strict=False)
        )
        if batch["due"]:
            records = [{"fault": fault} if fault else next(answered) for fault in batch["faults"]]
            job.files.save(batch["number"], records)
        world = self.trainer.world_size
        done = self._todo[batch_idx * world : (batch_idx + 1) * world]
        job.advance(sum(job.files.sizes[number] for number in done))

    def on_predict_end(self) -> None:
        """Waits until every process has written its last answers, since all of them read all answers.

        Raises:
            TrainingError: logits were not finite in one of the processes.
        """
        self._fault.end(self.trainer.world_size)
        self.trainer.strategy.barrier("answered")

    def _job(self) -> Job:
        if self.job is None:
            raise RuntimeError("begin(job) comes before predict")
        return self.job


class PreparedBatches(IterableDataset[dict[str, Any]]):
    """Batches ready to be answered, made of requests in as many workers as the loader has.

    Args:
        job: brings the requests.
        processor: tokenises them.
        share: numbers of batches, rising, and whether their answers are due.
    """

    def __init__(self, job: Job, processor: ChatProcessor, share: Sequence[tuple[int, bool]]) -> None:
        self.job, self.processor, self.share = job, processor, share

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """See the class; requests of other processes are passed over.

        Raises:
            DataError: the requests are not those that they were a moment ago.
        """
        info = get_worker_info()
        share = self.share[info.id :: info.num_workers] if info else self.share
        job, at = self.job, 0
        for number, batch in enumerate(in_batches(job.requests, job.batch_size)):
            if at == len(share):
                return
            if number != share[at][0]:
                continue
            if mark_of(batch, job.settings) != job.files.marks[number]:
                raise DataError(batch[0].key, "requests", "have changed while they were answered; run it again")
            prepared = self._prepared(batch)
            while at < len(share) and share[at][0] == number:
                yield {**prepared, "number": number, "due": share[at][1]}
                at += 1

    def _prepared(self, batch: Sequence[Request]) -> dict[str, Any]:
        examples, faults, wanted = [], [], []
        for request in batch:
            try:
                examples.append(self.processor.encode_question(request.key, request.image, request.text))
            except DataError as error:
                faults.append(str(error))
                continue
            faults.append("")
            wanted.append(request.num)
        if not examples:  # other processes count on this one to take the step, through the vision tower as well
            examples.append(self.processor.encode_question("blank", _blank(), "-"))
        return {"inputs": self.processor.collate(examples, [], pad_left=True), "faults": faults, "wanted": wanted}


def _blank() -> bytes:
    file = io.BytesIO()
    Image.new("L", (56, 56)).save(file, "PNG")
    return file.getvalue()


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
    if isinstance(init_args.get("family"), Mapping):
        init_args["family"] = instantiate(init_args["family"], "backbone.init_args.family", ("see", "tower"))
    backbone: Backbone = instantiate({"class_path": class_path, "init_args": init_args}, "backbone")
    return backbone.requires_grad_(False).eval()


def build_trainer(settings: Mapping[str, Any]) -> L.Trainer:
    """A Trainer that answers and leaves nothing behind.

    Args:
        settings: of the Trainer; a strategy may be ``{class_path, init_args}``.

    Raises:
        ConfigError: a setting cannot work here.
    """
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
