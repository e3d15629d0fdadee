"""Settings of a local model, checked before torch and Lightning are imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvg.errors import ConfigError

BACKBONE_CLASS = "kvg.backbones.backbone.Backbone"
TRAINER = ("accelerator", "strategy", "devices", "num_nodes", "precision", "benchmark", "deterministic")
_OF_TRAINING = (
    "gradient_clip_val",
    "accumulate_grad_batches",
    "max_epochs",
    "max_steps",
)  # ignored, because shared overlays contain them
_STRATEGIES = ("auto", "ddp")
_PRECISIONS = ("32-true", "32", "bf16-mixed", "16-mixed")


def backbone_setting(backbone: Mapping[str, Any] | str) -> dict[str, Any]:
    """The ``{class_path, init_args}`` of a backbone, without training settings.

    Raises:
        ConfigError: the value is neither a checkpoint nor ``{class_path, init_args}``.
    """
    if isinstance(backbone, str) and backbone:
        return {"class_path": BACKBONE_CLASS, "init_args": {"checkpoint": backbone}}
    if not isinstance(backbone, Mapping) or not isinstance(backbone.get("class_path"), str):
        raise ConfigError("backbone", f"{backbone!r} is neither a checkpoint nor {{class_path, init_args}}")
    init = dict(backbone.get("init_args") or {})
    if not init.get("checkpoint"):
        raise ConfigError("backbone.init_args.checkpoint", "is missing; name a folder, or a model of that family")
    if init.pop("lora", None):
        raise ConfigError("backbone.init_args.lora", "would add fresh adapters; merge them first, and remove it here")
    init.pop("gradient_checkpointing", None)
    return {"class_path": backbone["class_path"], "init_args": init}


def trainer_settings(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The Trainer's settings for inference.

    Raises:
        ConfigError: a setting is unknown or not supported.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError("trainer", f"{given!r} are not settings; see configs/strategy")
    settings = {name: value for name, value in (given or {}).items() if name not in _OF_TRAINING}
    for name in settings:
        if name not in TRAINER:
            raise ConfigError(f"trainer.{name}", f"is not an inference setting; choose from {', '.join(TRAINER)}")
    strategy, precision = settings.get("strategy", "auto"), settings.get("precision", 32)
    if isinstance(strategy, Mapping):
        if str(strategy.get("class_path", "")).endswith(("strategies.FSDPStrategy", "DeepSpeedStrategy")):
            raise ConfigError("trainer.strategy", "cannot generate; use configs/strategy/fsdp2.yaml for sharding")
    elif strategy not in _STRATEGIES:
        remedy = f"'{strategy}' is none of {', '.join(_STRATEGIES)}; or give {{class_path, init_args}}"
        raise ConfigError("trainer.strategy", remedy)
    if str(precision) not in _PRECISIONS:
        remedy = f"'{precision}' is none of {', '.join(_PRECISIONS)}; weights are cast by backbone.init_args.dtype"
        raise ConfigError("trainer.precision", remedy)
    return settings
