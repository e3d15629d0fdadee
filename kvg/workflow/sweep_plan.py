"""Makes the commands of an experiment: for each variant and seed a training, then its predictions."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from kvg.backbones.fingerprint import fingerprint, sampled
from kvg.config.overlay_files import shipped_configs
from kvg.errors import ConfigError
from kvg.runs.folder import PREDICTIONS, newest_checkpoint
from kvg.training.resolved import merged_settings, num_processes
from kvg.workflow.dag import Step
from kvg.workflow.demo import CHECKPOINT
from kvg.workflow.sweep_config import Experiment, Overlays, Variant

ROOT: Final = "trainer.default_root_dir"
SEEDED: Final = ("data.seed", "model.seed")  # set if the stage has these settings
_OURS: Final = {  # settings that the sweep itself sets
    "fit": (ROOT, "seed_everything"),
    "predict": (ROOT, "model.backbone.checkpoint", "seed_everything"),
}


@dataclass(frozen=True)
class Run:
    """A variant with a seed: its training and its prediction."""

    variant: str
    seed: int
    fit: Step
    predict: Step

    @property
    def name(self) -> str:
        """Returns the name of the run on the command line."""
        return run_name(self.variant, self.seed)


@dataclass(frozen=True)
class Plan:
    """All steps of a sweep."""

    prepare: tuple[Step, ...]
    runs: tuple[Run, ...]

    def steps(self, only: Sequence[str] = ()) -> list[Step]:
        """Returns the steps of all runs, or of some by name, after the steps of ``prepare``.

        All variants of one seed come before the next seed, so that variants can be compared before the last seeds are
        complete.

        Raises:
            ConfigError: a run does not exist.
        """
        names = [run.name for run in self.runs]
        for name in only:
            if name not in names:
                raise ConfigError("--only", f"'{name}' is not a run; there are {', '.join(names)}")
        chosen = [run for run in self.runs if not only or run.name in only]
        return [*self.prepare, *(step for run in chosen for step in (run.fit, run.predict))]


def plan(experiment: Experiment) -> Plan:
    """Makes the commands, and checks the settings of all of them.

    Raises:
        ConfigError: a config or setting is unknown or wrong.
    """
    pairs = [(variant, seed) for seed in experiment.seeds for variant in experiment.variants]
    commands: dict[str, list[str]] = {}
    for variant, seed in pairs:
        if seed == experiment.seeds[0] or _depends_on_seed(variant):
            commands |= _commands(experiment, variant, seed)
    settings = merged_settings(commands)
    prepare: list[Step] = []
    made = [experiment.out, *(entry.makes for entry in experiment.prepare)]
    for entry in experiment.prepare:
        name, needs = f"prepare_{entry.name}", tuple(step.name for step in prepare)
        title, contents = f"{entry.name}, for all runs", _files(entry.command, made)
        prepare.append(Step(name, title, entry.command, entry.makes, entry.makes, needs, extra_identity=contents))
    needs = tuple(step.name for step in prepare)
    runs = []
    for variant, seed in pairs:
        seen = seed if _depends_on_seed(variant) else experiment.seeds[0]
        fit_settings, predict_settings = (settings[_title(part, variant, seen)] for part in ("fit", "predict"))
        runs.append(_run(experiment, variant, seed, fit_settings, predict_settings, needs, made))
    return Plan(tuple(prepare), tuple(runs))


def run_name(variant: str, seed: int) -> str:
    """Returns the name of a run.

    >>> run_name("gated", 2)
    'gated_seed2'
    """
    return f"{variant}_seed{seed}"


def _title(part: str, variant: Variant, seed: int) -> str:
    return f"{part} {run_name(variant.name, seed)}"


def _depends_on_seed(variant: Variant) -> bool:
    values = [*variant.fit.settings.values(), *variant.predict.settings.values()]
    return any("{seed}" in json.dumps(value) for value in values)


def _folder(experiment: Experiment, variant: str, seed: int, part: str) -> Path:
    return experiment.out / "runs" / variant / f"seed{seed}" / part


def _commands(experiment: Experiment, variant: Variant, seed: int) -> dict[str, list[str]]:
    """Returns both commands of a run, without the seeds that only some stages have."""
    export = _folder(experiment, variant.name, seed, "fit") / "export"
    words = {
        "fit": _words(experiment, "fit", variant.fit, variant, seed),
        "predict": [*_words(experiment, "predict", variant.predict, variant, seed), CHECKPOINT, str(export)],
    }
    words["fit"] += ["--seed_everything", str(seed)]
    return {_title(part, variant, seed): own for part, own in words.items()}


def _words(experiment: Experiment, part: str, overlays: Overlays, variant: Variant, seed: int) -> list[str]:
    words = ["kvg", part]
    for config in overlays.configs:
        words += shipped_configs(["-c", config])
    for name, value in overlays.settings.items():
        if _short(name) in _OURS[part]:
            raise ConfigError(f"{part}.settings.{name}", "is set by the sweep; leave it out")
        words += [f"--{name}", experiment.fill(value, variant.name, seed)]
    return [*words, f"--{ROOT}", str(_folder(experiment, variant.name, seed, part))]


def _run(
    experiment: Experiment,
    variant: Variant,
    seed: int,
    fit_settings: Mapping[str, Any],
    predict_settings: Mapping[str, Any],
    needs: tuple[str, ...],
    made: Sequence[Path],
) -> Run:
    name = run_name(variant.name, seed)
    fit_words, predict_words = _commands(experiment, variant, seed).values()
    own_keys = {_short(key) for key in variant.fit.settings}
    for key in SEEDED:
        part, _, own = key.partition(".")
        if own in fit_settings[part].get("init_args", {}) and key not in own_keys:
            fit_words += [f"--{key}", str(seed)]
    if fit_settings["model"]["init_args"].get("export") is False:
        raise ConfigError("model.export", f"is false in {name}, but prediction needs the export; leave it true")
    folder, answers = (_folder(experiment, variant.name, seed, part) for part in ("fit", "predict"))
    fit = Step(
        f"fit_{name}",
        f"training of {variant.name} with seed {seed}",
        tuple(fit_words),
        folder,
        folder / "export/config.json",
        needs,
        _configs(fit_words),
        num_processes(fit_settings),
        _files(_named_in(fit_settings), made),
        partial(last_checkpoint, folder),
    )
    predict = Step(
        f"predict_{name}",
        f"answers of {variant.name} with seed {seed}",
        tuple(predict_words),
        answers,
        answers / PREDICTIONS,
        (*needs, fit.name),
        _configs(predict_words),
        num_processes(predict_settings),
        _files(_named_in(predict_settings), made),
        tuple,  # no arguments: `kvg predict` itself finds the questions that it has answered
    )
    return Run(variant.name, seed, fit, predict)


def _short(name: str) -> str:
    """Returns the shortest name of a setting.

    >>> _short("model.init_args.backbone.init_args.checkpoint")
    'model.backbone.checkpoint'
    """
    return name.replace(".init_args.", ".")


def _configs(words: Sequence[str]) -> tuple[Path, ...]:
    return tuple(Path(words[i + 1]) for i, word in enumerate(words[:-1]) if word == "-c")


def _files(texts: Iterable[str], made: Sequence[Path]) -> str:
    """Returns fingerprints of the files, sets and checkpoints among these texts, without those that the sweep makes.

    The fingerprint of weights and published files samples their bytes. That of shards is of their manifest, which has
    all checksums.
    """
    checksums: dict[str, Any] = {}
    for text in sorted(set(texts)):
        path = Path(text)
        if not text or path == Path() or any(path == own or own in path.parents for own in made):
            continue
        if os.path.isdir(text) or text == "lab":
            manifest = path / "manifest.json"
            checksums[text] = sampled(manifest) if manifest.is_file() else fingerprint(text)
        elif os.path.isfile(text):
            checksums[text] = sampled(path)
    return json.dumps(checksums)


def _named_in(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yields all texts in the settings that affect the result; some are paths of files."""
    return _texts([settings[key] for key in ("model", "data", "ckpt_path")])


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)


def last_checkpoint(folder: Path) -> tuple[str, ...] | None:
    """Returns the arguments that resume an interrupted training; None if it has no checkpoint."""
    newest = newest_checkpoint(folder)
    return None if newest is None else ("--ckpt_path", str(newest))
