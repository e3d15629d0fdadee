"""The LightningCLI of ``kvg``: builds module and data module from config and connects them by the processor."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jsonargparse import Namespace
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng

from kvg.backbones.backbone import Backbone
from kvg.backbones.stored_weights import deferred_weights
from kvg.config.parser_errors import explain
from kvg.errors import ConfigError, KVGError
from kvg.modules.precision import check_plugins, check_precision
from kvg.runs.checkpoint_record import Saved, check_fit
from kvg.runs.folder import check_run_folder, clear_run
from kvg.runs.interruption import Interruption, handlers_kept
from kvg.runs.lost_engine import LostEngine
from kvg.training.loggers import check_loggers, with_places
from kvg.training.preflight import (
    NeedsWeights,
    NoWeights,
    check_checkpoint,
    check_data,
    check_steps,
    check_strategy,
    checkpoint_path,
    first_cause,
    trainer_errors,
)
from kvg.work.cpu import prepare_cpu
from kvg.work.processes import follow_launcher, is_first, leading

NOISE = (
    r".*LeafSpec.*is deprecated",  # Lightning 2.6 with newer torch; users cannot fix it
    r".*`srun` command is available on your system but is not used",  # one process on a login node is intended
    r".*does not have many workers",  # decoding tiny pictures is faster than sending them through a queue
    r".*`IterableDataset` has `__len__` defined",  # our datasets split by worker
    r".*in eval mode at the start of training",  # rollouts and the frozen tower use eval mode
    r"Using ModelCheckpoint with manual optimization",  # saving after the step is intended
)


class KVGCLI(LightningCLI):
    """Builds any module and data module from config and gives the data module the backbone's processor.

    All checks that do not need the weights run before the weights are loaded.

    Args:
        args: arguments after the program's name.
        run: run the subcommand, which is then the first of ``args``; otherwise parse and instantiate only.
        command: the command line that repeats this run; ``args`` by default.

    Raises:
        ConfigError: a setting is unknown or of the wrong type, or a class cannot be imported.
        KVGError: the data or a path cannot be used.
    """

    def __init__(self, args: Sequence[str], run: bool = True, command: Sequence[str] | None = None) -> None:
        self._command = list(command or ["kvg", *args])
        self._backbone: NoWeights | None = None  # placeholder until the model is loaded
        self._saved: Saved | None = None
        self._clears = False
        # Errors are raised and reported in one line, instead of 150 lines of usage.
        quiet: dict[str, Any] = {"exit_on_error": False}
        try:
            super().__init__(
                args=list(args),
                run=run,
                auto_configure_optimizers=False,  # the optimizer is an argument of the module
                load_from_checkpoint_support=False,  # all settings are in the config
                seed_everything_default=0,
                save_config_kwargs={"overwrite": True},  # a requeued job continues in its own folder
                parser_kwargs={**quiet, **{command: dict(quiet) for command in self.subcommands()}},
            )
        except argparse.ArgumentError as error:
            raise ConfigError(*explain(str(error))) from error

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.set_defaults({"weights_only": True})  # unpickling an untrusted checkpoint can run arbitrary code
        if subcommand == "predict":
            parser.set_defaults({"return_predictions": False})  # answers are written to a file
        if subcommand == "fit":
            text = "Remove an earlier run from trainer.default_root_dir; without it such a folder is an error."
            parser.add_argument("--overwrite", type=bool, default=False, help=text)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses ``args``; Lightning's method would warn, because the process has the same arguments."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Does nothing: Lightning would read settings from the checkpoint, but all settings are in the config."""

    def before_instantiate_classes(self) -> None:
        """Checks precision, plugins and loggers, and sets the number of threads if there is no GPU."""
        command = self.config.get("subcommand")
        trainer = (self.config[command] if command else self.config).trainer
        check_precision(trainer.precision, training=command in (None, "fit"))
        check_plugins(trainer.plugins)
        check_strategy(trainer.strategy)
        check_loggers(trainer)
        if not torch.cuda.is_available() and prepare_cpu():
            rank_zero_info("No GPU: one thread per process, which is fastest for tiny models; OMP_NUM_THREADS sets it.")

    # -- before the weights ----------------------------------------------------------------------------------------
    def instantiate_classes(self) -> None:
        """Builds the data module and the Trainer, runs the checks, and then builds the model."""
        settings = self._settings()
        overwrite = settings.pop("overwrite", False)
        if self.subcommand == "fit":
            settings["overwrite"] = False  # in the saved config: repeating that config must not overwrite a run
        with isolate_rng():  # the checks must not change the random weights of the model
            self.config_init = self._built([key for key in vars(settings) if key not in ("model", "overwrite")])
            self.datamodule = self._get(self.config_init, "data")
            with trainer_errors():
                self.trainer = self.instantiate_trainer()
            self._check_run(overwrite)
            if self.subcommand:
                check_data(self.datamodule, self.subcommand)
        shared = isinstance(self.trainer.strategy, ModelParallelStrategy)
        with deferred_weights() if shared else nullcontext():
            self.model = self._get(self._built(["model"]), "model")

    def _settings(self) -> Namespace:
        settings: Namespace = self.config[self.subcommand] if self.subcommand else self.config
        return settings

    def _built(
        self, keys: Sequence[str], instantiators: Sequence[tuple[Any, type[Any], bool]] | None = None
    ) -> Namespace:
        """Instantiates the settings of these keys."""
        chosen = Namespace({key: self._settings()[key] for key in keys})  # type: ignore[no-untyped-call]
        if "trainer" in keys:
            chosen["trainer"] = with_places(chosen["trainer"])
        if self.subcommand:
            command = self.subcommand
            chosen = Namespace({"subcommand": command, command: chosen})  # type: ignore[no-untyped-call]
        built: Namespace = self.parser.instantiate(chosen, instantiators=instantiators)  # type: ignore[no-untyped-call]
        return built

    def _check_run(self, overwrite: bool) -> None:
        """Checks the module's arguments with a backbone without weights, then the run folder and the checkpoint."""
        command, settings = self.subcommand, self._settings()
        module = self._module_without_weights()
        if not command:
            return
        folder = Path(self.trainer.default_root_dir)
        path = checkpoint_path(settings.get("ckpt_path"), folder, command)
        if path is not None:
            settings["ckpt_path"] = self.config_init[command]["ckpt_path"] = path
        check_command = getattr(module, "check_command", None)
        if check_command is not None:
            check_command(self.trainer, command, path)
        if command == "fit" and not getattr(self.trainer, "fast_dev_run", False):
            model = self._backbone.checkpoint if self._backbone else ""
            self._clears = check_run_folder(folder, path, overwrite, [one for one in (model, path) if one])
        if module is None or self._backbone is None:
            return
        if command == "fit":
            check_steps(self.trainer, module)
        if path is not None and not path.startswith("registry:"):
            self._saved = check_checkpoint(path, command, self.trainer, module, self.datamodule, self._backbone)

    def _module_without_weights(self) -> L.LightningModule | None:
        def build(kind: type[Any], *args: Any, **kwargs: Any) -> NoWeights:
            self._backbone = NoWeights(str(kwargs.get("checkpoint", "")), kwargs.get("family"))
            return self._backbone

        try:
            module: L.LightningModule = self._get(self._built(["model"], [(build, Backbone, True)]), "model")
            return module
        except Exception as error:
            if first_cause(error, NeedsWeights):
                return None  # this module uses its backbone in its constructor
            raise

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> L.Trainer:
        if config.get("fast_dev_run"):  # Lightning's ModelCheckpoint writes last.ckpt even with fast_dev_run
            config["callbacks"] = [c for c in config.get("callbacks") or [] if not isinstance(c, ModelCheckpoint)]
        if self.subcommand == "fit":
            interruption = Interruption(self._command)
            callbacks = [*callbacks, interruption, LostEngine(interruption)]
        return super()._instantiate_trainer(config, callbacks)

    # -- with the model --------------------------------------------------------------------------------------------
    def after_instantiate_classes(self) -> None:
        """Gives the data module the backbone's processor, and checks the checkpoint and the Trainer's settings."""
        connect, backbone = getattr(self.datamodule, "connect", None), getattr(self.model, "backbone", None)
        if connect is not None and backbone is not None:
            connect(backbone)
        if self._saved is not None:
            own = {**self.model.state_dict(), **dict(self.model.named_parameters(remove_duplicate=False))}
            check_fit(self._saved.tensors, {name: tuple(value.shape) for name, value in own.items()})
        if self.subcommand == "fit":
            check_steps(self.trainer, self.model)

    def before_fit(self) -> None:
        """Removes an earlier run after all checks have passed."""
        if self._clears and is_first():
            rank_zero_info("Removing the earlier run in %s.", self.trainer.default_root_dir)
            clear_run(Path(self.trainer.default_root_dir))


def run(args: Sequence[str], typed: Sequence[str] | None = None) -> KVGCLI:
    """Runs ``kvg ARGS``.

    Args:
        args: arguments after the program's name.
        typed: the arguments as the user typed them; ``args`` by default.

    Raises:
        KVGError: a setting or the data cannot be used, or the checkpoint is of another architecture.
    """
    follow_launcher()
    for message in NOISE:
        warnings.filterwarnings("ignore", message)
    program = ["kvg"] if Path(sys.argv[0]).name == "kvg" else ["python", "-m", "kvg"]
    with reported(), leading(), handlers_kept():
        return KVGCLI(args, command=[*program, *(typed or args)])


@contextmanager
def reported() -> Iterator[None]:
    """Converts errors of the parser, and of the classes that it builds, to ``KVGError``.

    Raises:
        KVGError: a setting cannot be used.
    """
    try:
        yield
    except ValueError as error:  # the parser wraps errors of constructors
        cause = first_cause(error, KVGError)
        if cause is not None:
            raise cause from error
        if not str(error).startswith("Does not validate"):
            raise
        raise ConfigError(*explain(str(error))) from error
