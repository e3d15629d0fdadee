"""What the memory of a training depends on, read from merged settings."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kvg.backbones.family import Family
from kvg.backbones.lora import LoRASettings
from kvg.errors import ConfigError

_OWN: Final = ("checkpoint", "family", "lora", "feature_cache_mb")
_PRECISIONS: Final = {"32-true": "32-true", "32": "32-true", "None": "32-true", "bf16": "bf16-mixed"}


@dataclass(frozen=True)
class Training:
    """A training as far as its memory depends on it.

    Attributes:
        stage: ``sft`` or ``grpo``.
        checkpoint: as configured.
        family: as configured; None for that of the checkpoint.
        backbone: further arguments of ``Backbone``.
        precision: of the Trainer.
        device: ``cuda`` or ``cpu``.
        processes: of all nodes.
        strategy: ``single``, ``ddp`` or ``fsdp2``.
        gather: of FSDP2, see ``kvg.backbones.sharding.Shards``.
        bucket_views: whether gradients of DDP lie in its messages.
        batch_size: examples of a process.
        accumulate: batches of an update (stage 1).
        max_tokens: of a sample (stage 1) or a prompt (stage 2); None for no limit.
        max_new_tokens: of a completion.
        group_size: completions of a prompt.
        microbatch_size: prompts that are learnt at once.
        minibatches: updates of a batch in each of its passes.
        passes: over each batch.
        resamples: whether batches may be joined.
        reference: whether there is a penalty that needs one.
        entropy: whether a gradient flows through entropies.
        truncates: whether the sampler leaves words out.
        external: whether an engine outside samples.
        overlap: whether the next batch is sampled beside the update.
        optimizer: ``{class_path, init_args}``.
        validates: whether answers are sampled in validation.
    """

    stage: str
    checkpoint: str
    family: Family | None
    backbone: Mapping[str, Any]
    precision: str
    device: str
    processes: int
    strategy: str
    gather: str = "auto"
    bucket_views: bool = False
    batch_size: int = 8
    accumulate: int = 1
    max_tokens: int | None = None
    max_new_tokens: int = 512
    group_size: int = 1
    microbatch_size: int = 0
    minibatches: int = 1
    passes: int = 1
    resamples: bool = False
    reference: bool = False
    entropy: bool = False
    truncates: bool = False
    external: bool = False
    overlap: bool = False
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    validates: bool = False

    @property
    def at_once(self) -> int:
        """Examples or prompts whose activations exist at the same time."""
        if self.stage == "sft":
            return self.batch_size
        whole = -(-self.batch_size // min(self.minibatches, self.batch_size))
        return min(self.microbatch_size or whole, whole)

    @property
    def parts(self) -> int:
        """Backward passes of an update."""
        if self.stage == "sft":
            return self.accumulate
        return -(-self.batch_size // min(self.minibatches, self.batch_size) // self.at_once)


def read_training(settings: Mapping[str, Any]) -> Training:
    """The training of merged settings of ``kvg fit``.

    Args:
        settings: as plain data, see ``kvg.training.resolved.merged_settings``.

    Raises:
        ConfigError: they are not those of a stage, or of a strategy that is not planned.
    """
    trainer, model, data = settings["trainer"], settings["model"], settings["data"].get("init_args") or {}
    kind, own = str(model["class_path"]).rpartition(".")[2], model.get("init_args") or {}
    stages = {"CoTSFTModule": "sft", "GRPOModule": "grpo"}
    if kind not in stages:
        raise ConfigError("model.class_path", f"{kind} is no stage that is planned; there are {', '.join(stages)}")
    backbone = dict(own["backbone"].get("init_args") or {})
    family = backbone.get("family")
    processes = _processes(trainer)
    strategy, options = _strategy(trainer.get("strategy"), processes)
    precision = str(trainer.get("precision"))
    common: dict[str, Any] = {
        "stage": stages[kind],
        "checkpoint": str(backbone.get("checkpoint")),
        "family": None if family is None else _built(family),
        "backbone": {name: value for name, value in backbone.items() if name not in _OWN} | {"lora": _lora(backbone)},
        "precision": _PRECISIONS.get(precision, precision),
        "device": "cpu" if str(trainer.get("accelerator")) == "cpu" else "cuda",
        "processes": processes,
        "strategy": strategy,
        "gather": options.get("gather", "auto"),
        "bucket_views": bool(options.get("gradient_as_bucket_view")),
        "batch_size": int(data.get("batch_size", 8)),
        "accumulate": int(trainer.get("accumulate_grad_batches") or 1),
        "max_tokens": data.get("max_tokens"),
        "max_new_tokens": int(own["max_new_tokens"]),
        "optimizer": own.get("optimizer") or {"class_path": "torch.optim.AdamW"},
        "validates": bool(data.get("val")) and trainer.get("limit_val_batches") != 0,
    }
    if stages[kind] == "sft":
        return Training(**common)
    loss = own["loss"].get("init_args") or {}
    engine = own.get("engine") or {}
    return Training(
        **common,
        group_size=int(own["group_size"]),
        microbatch_size=int(own["microbatch_size"]),
        minibatches=int(own["num_minibatches"]),
        passes=int(own["num_iterations"]),
        resamples=bool(own["max_resample_batches"]),
        reference=bool(loss.get("beta", 0.04)),
        entropy=bool(loss.get("entropy")),
        truncates=own["top_p"] < 1 or own["top_k"] > 0,
        external=bool(engine) and not str(engine.get("class_path")).endswith("BuiltInEngine"),
        overlap=bool(own["overlap"]),
    )


def _lora(backbone: Mapping[str, Any]) -> LoRASettings | None:
    lora = backbone.get("lora")
    if not isinstance(lora, Mapping):
        return lora
    given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in lora.items()}
    return LoRASettings(**given)


def _built(setting: Any) -> Any:
    """The object of a ``{class_path, init_args}``."""
    path = setting if isinstance(setting, str) else setting["class_path"]
    arguments = {} if isinstance(setting, str) else setting.get("init_args") or {}
    return class_of(path)(**arguments)


def class_of(path: str) -> Any:
    """A class by its path.

    Raises:
        ConfigError: there is none.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(path, f"cannot be imported ({error}); correct it, or install its package") from error


def _processes(trainer: Mapping[str, Any]) -> int:
    devices = trainer.get("devices")
    if isinstance(devices, list):
        devices = len(devices)
    if not str(devices).isdecimal() or not int(str(devices)):
        raise ConfigError("trainer.devices", f"{devices} depends on the machine; give a number, as --trainer.devices 8")
    return int(str(devices)) * int(trainer.get("num_nodes") or 1)


def _strategy(setting: Any, processes: int) -> tuple[str, Mapping[str, Any]]:
    """``single``, ``ddp`` or ``fsdp2``, and the arguments of its class."""
    name = setting if isinstance(setting, str) else setting["class_path"]
    options = {} if isinstance(setting, str) else setting.get("init_args") or {}
    kind = name.rpartition(".")[2]
    if kind in ("FSDP2Strategy", "ModelParallelStrategy"):
        return "fsdp2", options
    if kind.lower().startswith("ddp") or (kind == "auto" and processes > 1):
        return "ddp", options
    if kind in ("auto", "SingleDeviceStrategy"):
        return "single", options
    raise ConfigError(
        "trainer.strategy", f"{name} is not planned; there are configs/strategy/{{single,ddp,fsdp2}}.yaml"
    )
