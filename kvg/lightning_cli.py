"""The LightningCLI behind ``kvg``: module and data module from config, tied together by the backbone's processor."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info

from kvg.cpu import prepare_cpu
from kvg.errors import ConfigError, KVGError
from kvg.launch import follow_launcher, leading
from kvg.modules.precision import check_plugins, check_precision

NOISE = (
    r".*LeafSpec.*is deprecated",  # Lightning 2.6 beside newer torch; nothing a user can do
    r".*`srun` command is available on your system but is not used",  # one process on a login node is a choice
    r".*does not have many workers",  # tiny pictures are decoded faster than they cross a queue
    r".*`IterableDataset` has `__len__` defined",  # and knows its workers
    r".*in eval mode at the start of training",  # rollouts and the frozen tower leave the model so
    r"Using ModelCheckpoint with manual optimization",  # saved after the step is what is wanted
)


class KVGCLI(LightningCLI):
    """Builds any module and data module from config and gives the data module the backbone's processor.

    Args:
        args: arguments after the program's name.
        run: run the subcommand, which ``args`` then begin with; otherwise parse and instantiate only.

    Raises:
        ConfigError: a setting is unknown or of the wrong type, or a class cannot be imported.
    """

    def __init__(self, args: Sequence[str], run: bool = True) -> None:
        # an own message instead of 150 lines of usage
        quiet: dict[str, Any] = {"exit_on_error": False}
        try:
            super().__init__(
                args=list(args),
                run=run,
                auto_configure_optimizers=False,  # the optimizer is an argument of the module
                load_from_checkpoint_support=False,  # the config says it all; checkpoints hold tensors and counters
                seed_everything_default=0,
                save_config_kwargs={"overwrite": True},  # a requeued job comes back to its own folder
                parser_kwargs={**quiet, **{command: dict(quiet) for command in self.subcommands()}},
            )
        except argparse.ArgumentError as error:
            raise ConfigError(*explain(str(error))) from error

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.set_defaults({"weights_only": True})  # unpickling a stranger's checkpoint runs the stranger's code
        if subcommand == "predict":
            parser.set_defaults({"return_predictions": False})  # answers go to a file
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses ``args``; Lightning's own warns whenever the process has arguments too, which here are the same."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Looks at the checkpoint before anything is built. Lightning would take settings from it too."""
        command = self.config.get("subcommand")
        path = self.config[command].get("ckpt_path") if command else None
        self._saved = saved_tensors(path) if path and self._names_file(path) else {}

    @staticmethod
    def _names_file(path: str) -> bool:
        return str(path) not in ("best", "last", "hpc", "registry") and not str(path).startswith("registry:")

    def before_instantiate_classes(self) -> None:
        """Sets up a process that computes on a CPU, and checks precision and data before a model is loaded."""
        command = self.config.get("subcommand")
        trainer = (self.config[command] if command else self.config).trainer
        check_precision(trainer.precision, training=command in (None, "fit"))
        check_plugins(trainer.plugins)
        if not torch.cuda.is_available() and prepare_cpu():
            rank_zero_info("No GPU: one thread per process, which is fastest for tiny models; OMP_NUM_THREADS sets it.")
        self._asked = self._checked_data()

    def _checked_data(self) -> Any:
        command = self.config.get("subcommand")
        if command not in ("test", "predict") or not self.config[command].get("data"):
            return None
        made = self._subcommand_parsers[command].instantiate(Namespace(data=self.config[command].data))  # type: ignore[no-untyped-call]
        made.data.setup(command)
        return made.data

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Builds the Trainer.

        Raises:
            ConfigError: its settings do not go together, or this machine lacks what they ask for.
        """
        try:
            return super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, RuntimeError, TypeError, ImportError) as error:
            raise ConfigError("trainer", f"{error}; change its settings") from error

    def after_instantiate_classes(self) -> None:
        """Names the processor once: the data module takes the backbone's. Refuses what cannot go together."""
        if self._asked is not None:
            self.datamodule = self._asked  # which need not look at everything again
        connect = getattr(self.datamodule, "connect", None)
        if connect is not None:
            connect(self.model.backbone)
        if self._saved:
            check_fit(self._saved, {name: tuple(value.shape) for name, value in self.model.state_dict().items()})
        if not self.model.automatic_optimization:
            refuse_trainer_steps(self.trainer.gradient_clip_val, self.trainer.accumulate_grad_batches)


def run(args: Sequence[str]) -> KVGCLI:
    """Runs ``kvg ARGS``.

    Raises:
        KVGError: a setting or the data cannot be used, or the checkpoint is of another architecture.
    """
    follow_launcher()
    for message in NOISE:
        warnings.filterwarnings("ignore", message)
    with reported(), leading():
        return KVGCLI(args)


@contextmanager
def reported() -> Iterator[None]:
    """Says in a ``KVGError`` what the parser, or a class that it builds, finds wrong with a setting.

    Raises:
        KVGError: a setting cannot be used.
    """
    try:
        yield
    except ValueError as error:  # the parser wraps whatever a class raises as it is built
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, KVGError):
                raise cause from error
            cause = cause.__cause__
        if not str(error).startswith("Does not validate"):
            raise
        raise ConfigError(*explain(str(error))) from error


def refuse_trainer_steps(gradient_clip_val: float | None, accumulate_grad_batches: int) -> None:
    """Refuses settings of the Trainer for a stage that takes its optimizer steps itself.

    Raises:
        ConfigError: one is set.
    """
    if gradient_clip_val:
        remedy = "this stage takes its steps itself; set it to null and give model.max_grad_norm"
        raise ConfigError("trainer.gradient_clip_val", remedy)
    if accumulate_grad_batches != 1:
        remedy = "this stage takes its steps itself; set it to 1, raise data.batch_size and give model.part_prompts"
        raise ConfigError("trainer.accumulate_grad_batches", remedy)


def saved_tensors(path: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the model's tensors in a checkpoint file by name; empty for a folder, which the strategy checks.

    Raises:
        ConfigError: the checkpoint is not there, or is none.
    """
    if Path(path).is_dir():
        return {}
    if not Path(path).is_file():
        raise ConfigError("ckpt_path", f"'{path}' does not exist; checkpoints lie in RUN/lightning_logs/version_N")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
        return {str(name): tuple(value.shape) for name, value in saved.items()}
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            "ckpt_path", f"'{path}' is damaged or no checkpoint of this project; choose another"
        ) from error


def check_fit(saved: Mapping[str, tuple[int, ...]], model: Mapping[str, tuple[int, ...]]) -> None:
    """Refuses a checkpoint that holds other tensors than the model. It may hold fewer, as frozen parts are left out.

    Args:
        saved: shapes by name in the checkpoint.
        model: shapes by name in the model.

    Raises:
        ConfigError: a tensor is unknown to the model or of another shape.
    """
    unknown = [name for name in saved if name not in model]
    reshaped = [name for name, shape in saved.items() if name in model and model[name] != shape]
    faults = [f"{len(unknown)} of its tensors are unknown ({unknown[0]}, ...)"] if unknown else []
    faults += [f"{len(reshaped)} of another shape ({reshaped[0]}, ...)"] if reshaped else []
    if faults:
        remedy = "use the backbone and the settings it was trained with"
        raise ConfigError("ckpt_path", f"does not fit this model: {', '.join(faults)}; {remedy}")


def explain(message: str) -> tuple[str, str]:
    """Sums up a parser's message as the setting at fault and what is wrong with it.

    >>> explain("unrecognized arguments: --trainer.max_stepz=3")
    ('trainer.max_stepz', 'unknown setting')
    >>> explain("Subcommand 'fit' does not accept option 'trainer.max_step'")
    ('trainer.max_step', 'unknown setting')
    >>> explain("the following arguments are required: fit.model")
    ('model', 'is missing; begin with the config of a stage, for example -c configs/stage/cot_sft.yaml')
    """
    unknown = re.search(r"unrecognized arguments: -*([^\s=]+)", message)
    unknown = unknown or re.search(r"does not accept option '([^']+)'", message)
    if unknown and "class_path" not in message:
        return unknown.group(1), "unknown setting"
    missing = re.search(r"arguments are required: (?:\w+\.)?(\w+)$", message.strip())
    if missing:
        remedy = "is missing; begin with the config of a stage, for example -c configs/stage/cot_sft.yaml"
        return missing.group(1), remedy
    key = re.search(r'[Pp]arser key "([^"]+)"', message)
    field = key.group(1) if key else "settings"
    # Every optional argument is a union with None, and every union lists all that it is not.
    noise = (
        r"Does not validate|Subtypes|Errors$|Given value|Expected a <class 'NoneType'>|Expected a path|[Pp]arser key"
    )
    lines = [line.strip(" -:") for line in message.splitlines()]
    told = [line for line in lines if line and not re.match(noise, line)]
    classes = [re.findall(r"given class_path '([^']+)'", line) for line in told]
    option = re.search(r"Option '([^']+)' is not accepted|does not accept option '([^']+)'", message)
    if option:
        owner = [name for names in classes for name in names]
        return ".".join([field, "init_args", option[1] or option[2]]), f"unknown setting of {(owner or [field])[-1]}"
    return field, "; ".join(dict.fromkeys(told)) or message
