"""Writes a model as a Hugging Face folder with a model card: from a training's checkpoint, adapters, or a folder."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub import HfApi
from torch import Tensor

from kvg.backbones.adapter_export import adapter_names, write_adapter
from kvg.backbones.adapter_files import WEIGHTS as ADAPTER_WEIGHTS
from kvg.backbones.adapter_files import adapter_base
from kvg.backbones.backbone import Backbone
from kvg.backbones.base_weights import about_base
from kvg.backbones.builtin import RANDOM, checkpoint_folder
from kvg.backbones.fingerprint import identity, same_model
from kvg.backbones.folders import write_description, write_folder
from kvg.backbones.merge_check import MergeCheck, adapter_factors, changed_names
from kvg.backbones.saved_weights import LazyTensor, Weight, lazy_state, read_saved_weights
from kvg.backbones.stored_weights import StoredTensor, deferred_weights, stored_tensors
from kvg.backbones.weight_files import current_name, tensor_shapes
from kvg.config.settings import instantiate, read_yaml
from kvg.errors import ConfigError, TrainingError
from kvg.inference.local_settings import BACKBONE_CLASS
from kvg.pipeline.model_card import CARD, CardSources, model_card
from kvg.records import object_of
from kvg.runs.checkpoint_record import RECORD, read_metadata
from kvg.runs.folder import replaced
from kvg.work.progress import progress_bar

SETTINGS: Final = "training.yaml"  # in the folder: the config of the training
TIED: Final = "lm_head.weight"


@dataclass(frozen=True)
class ExportSettings:
    """What is exported, and where to.

    Attributes:
        checkpoint: of a training (a file or a folder), a folder of a model or of PEFT's adapters, or a hub name.
        out: folder that is written; an earlier one is replaced.
        config: settings of the training; None takes those in its folder.
        base: model that the training began with, where it has been moved.
        mode: prompt mode that the model was trained with; None takes that of the checkpoint.
        apart: write the adapters alone, in PEFT's format, instead of merging them.
        card: what the model card is made of besides the training.
        push: repository on the hub that gets the folder; None for none.
    """

    checkpoint: str
    out: Path
    config: Path | None = None
    base: str | None = None
    mode: str | None = None
    apart: bool = False
    card: CardSources = dataclasses.field(default_factory=lambda: CardSources())
    push: str | None = None


@dataclass(frozen=True)
class _Source:
    backbone: Backbone
    state: Mapping[str, Weight]
    config: Mapping[str, Any]
    mode: str | None
    steps: int | None
    trained: frozenset[str]


def export(settings: ExportSettings) -> str:
    """Writes the folder; returns what was checked, in words.

    The folder appears when all of it has been written and checked. Weights are read, merged and written one layer at a
    time.

    Raises:
        ConfigError: a path cannot be used, or checkpoint, config and base do not belong together.
        TrainingError: a tensor is not what it should be; see ``MergeCheck``.
    """
    _check_out(settings)
    source = _source(settings)
    backbone, mode = source.backbone, settings.mode or source.mode
    start = str(checkpoint_folder(adapter_base(backbone.checkpoint) or backbone.checkpoint))
    with replaced(settings.out, writes=True) as folder:
        if settings.apart:
            checked = _write_apart(source, folder, mode)
        else:
            check = _check_of(source, start, settings.out)
            with progress_bar() as bar:
                task = bar.add_task("tensors written", total=len(check.base) or None)

                def checked_one(name: str, value: Tensor) -> None:
                    check(name, value)
                    bar.advance(task)

                processor, lora = backbone.processor, backbone.lora
                write_folder(folder, backbone.model, processor, mode, lora, source.state, checked_one)
            checked = check.finish({TIED} if backbone.model.config.tie_word_embeddings else ())
        facts = {"checkpoint": settings.checkpoint, "base": start, "steps": source.steps, "apart": settings.apart}
        text = model_card(backbone.processor, mode, source.config, facts, settings.card)
        (folder / CARD).write_text(text, encoding="utf-8")
        if file := _config_file(settings):
            shutil.copyfile(file, folder / SETTINGS)
    if settings.push:
        push(settings.out, settings.push)
    return checked


def push(folder: Path, repository: str) -> None:
    """Uploads a folder to a private repository of the hub, which is made where it is missing.

    Raises:
        ConfigError: the hub refuses it.
    """
    api = HfApi()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"Export of {folder.name}")
    except Exception as error:  # network and hub errors of many kinds
        reason = " ".join(str(error).split())[:300]
        raise ConfigError("--push", f"'{repository}' was not uploaded: {reason}; {folder} is complete") from error


def is_training_checkpoint(checkpoint: str) -> bool:
    """Whether this is the state of a training: a file, or a folder with a part of every process."""
    path = Path(checkpoint)
    return path.is_file() or (path / ".metadata").is_file()


def _check_out(settings: ExportSettings) -> None:
    out = settings.out
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "config.json").is_file()
                         and not (out / "adapter_config.json").is_file()):  # fmt: skip
        raise ConfigError("--out", f"'{out}' holds something else than a model; name another folder")
    if Path(settings.checkpoint).is_dir() and out.absolute() == Path(settings.checkpoint).absolute():
        raise ConfigError("--out", "is the model itself; name another folder")
    if is_training_checkpoint(settings.checkpoint):
        return
    if settings.apart:
        raise ConfigError("--adapter", "needs a checkpoint of a training with adapters; those of a folder are apart")
    if settings.base is not None:
        remedy = "write base_model_name_or_path into the adapter_config.json of a folder of adapters"
        raise ConfigError("--base", f"is for the checkpoint of a training; {remedy}, or leave it out")


def _config_file(settings: ExportSettings) -> Path | None:
    """The config of the training; None where none is needed."""
    path = Path(settings.checkpoint)
    if settings.config is not None or not is_training_checkpoint(settings.checkpoint):
        return settings.config
    own = path.absolute().parent.parent / "config.yaml"  # version_0/checkpoints/last.ckpt
    saved = sorted(path.absolute().parent.glob("*/version_*/config.yaml"), key=lambda file: file.stat().st_mtime)
    if not own.is_file() and not saved:
        raise ConfigError("--config", f"is missing: there is no config.yaml beside '{path}'; name that of the training")
    return own if own.is_file() else saved[-1]


def _source(settings: ExportSettings) -> _Source:
    if not is_training_checkpoint(settings.checkpoint):
        init: dict[str, Any] = {"checkpoint": settings.checkpoint}
        backbone = _built({"class_path": BACKBONE_CLASS, "init_args": init})
        state = lazy_state(backbone.model, backbone.stored, {})
        merged = adapter_base(settings.checkpoint)
        trained = _adapted(settings.checkpoint) if merged else frozenset()
        config = read_yaml(settings.config) if settings.config else {}
        return _Source(backbone, state, config, backbone.trained_mode, None, trained)
    file = _config_file(settings)
    assert file is not None
    config = read_yaml(file)
    setting = _backbone_setting(str(file), config, settings.base)
    saved = read_saved_weights(Path(settings.checkpoint))
    metadata = read_metadata(settings.checkpoint)
    record = metadata.get(RECORD) or {}
    _check_base(settings, record, str(setting["init_args"].get("checkpoint")))
    backbone = _built(setting)
    state = lazy_state(backbone.model, backbone.stored, saved)
    own = {name: tuple(value.shape) for name, value in backbone.model.state_dict().items()}
    needed = {name for name, value in backbone.model.named_parameters() if value.requires_grad}
    misfits = sorted(name for name, value in saved.items() if own.get(name) != tuple(value.shape))
    if misfits or (missing := sorted(needed - saved.keys())):
        text = f"does not fit {file}: {len(misfits or missing)} tensors ({(misfits or missing)[0]}, ...)"
        raise ConfigError("checkpoint", f"'{settings.checkpoint}' {text}; give --config and --base of its training")
    if settings.apart and not backbone.keeps_base:
        raise ConfigError("--adapter", "this training has no adapters, or has trained more than them; leave it out")
    mode = metadata.get("kvg_mode") or record.get("mode") or None
    trained = frozenset(changed_names(backbone.model, needed))
    return _Source(backbone, state, config, mode, metadata.get("global_step"), trained)


def _check_base(settings: ExportSettings, record: Mapping[str, Any], start: str) -> None:
    """Refuses a model whose frozen weights are others than those that the training began with."""
    began = record.get("base")
    if isinstance(began, str) and began and not same_model(began, identity(start)):
        remedy = f"'{settings.checkpoint}' holds trained weights alone, and was not trained on the files of '{start}'"
        raise ConfigError("--base", f"{remedy}; give the model that its training began with")


def _backbone_setting(file: str, config: Mapping[str, Any], base: str | None) -> dict[str, Any]:
    model = object_of(file, "model", config.get("model"))
    setting = object_of(file, "model.init_args", model.get("init_args")).get("backbone")
    setting = object_of(file, "model.init_args.backbone", setting)
    init = dict(setting.get("init_args") or {})
    if isinstance(init.get("lora"), Mapping):
        lora = {name: tuple(value) if isinstance(value, list) else value for name, value in init["lora"].items()}
        named = {"class_path": "kvg.backbones.lora.LoRASettings", "init_args": lora}
        init["lora"] = instantiate(named, "backbone.init_args.lora")
    if isinstance(init.get("family"), Mapping):
        init["family"] = instantiate(init["family"], "backbone.init_args.family", ("see", "tower"))
    return {"class_path": setting.get("class_path"), "init_args": {**init, **({"checkpoint": base} if base else {})}}


def _built(setting: Mapping[str, Any]) -> Backbone:
    with deferred_weights():
        backbone: Backbone = instantiate(setting, "backbone", Backbone)
    return backbone


def _adapted(checkpoint: str) -> frozenset[str]:
    """Weights that PEFT's adapters change, of which only PEFT knows the way."""
    shapes = tensor_shapes(checkpoint, ADAPTER_WEIGHTS)
    layers = {name.removeprefix("base_model.model.").rsplit(".lora_", 1)[0] for name in shapes}
    return frozenset(current_name(f"{layer}.weight") for layer in layers)


def _check_of(source: _Source, start: str, out: Path) -> MergeCheck:
    base: Mapping[str, StoredTensor] = {}
    if start not in RANDOM and Path(start).is_dir():
        base = stored_tensors(start)
    lora = source.backbone.lora
    # In four bits the model that adapters belong to is none that a file holds.
    factors = {} if lora and lora.bits == 4 else adapter_factors(source.state, lora)
    return MergeCheck(f"export to {out}", base, factors, lora.scale if lora else 1.0, source.trained)


def _write_apart(source: _Source, folder: Path, mode: str | None) -> str:
    adapters: dict[str, Tensor] = {}
    for name, saved in adapter_names(source.backbone.model).items():
        value = source.state[name]
        tensor = value.read() if isinstance(value, LazyTensor) else value
        adapters[saved] = tensor.detach().contiguous()
    if not all(bool(torch.isfinite(value).all()) for value in adapters.values()):
        raise TrainingError(f"export to {folder}", "an adapter holds NaN or infinity; nothing was written")
    write_adapter(source.backbone, adapters, folder)
    write_description(folder, source.backbone.processor, mode, about_base(source.backbone.checkpoint))
    return f"{len(adapters)} tensors of adapters"
