"""All runs that the files of ``configs`` are made for, found by what is in the folders: a new file is a new run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, cycle, product
from pathlib import Path
from typing import Any

import yaml

from kvg.workflow.sweep_config import load_experiment

CONFIGS = Path(__file__).parents[2] / "configs"
NEEDS_VLLM = ("engine/vllm_server", "engine/vllm")  # see tests/inference/test_vllm_server.py, test_vllm_in_process.py
OFTEN = "--trainer.val_check_interval=1.0"  # toys have fewer batches than a part of a training
SMALLER = {  # settings of trainings of the lab's base that do not fit a toy of two layers
    "lab/photographs_name_alignment": (OFTEN,),
    "lab/photographs_guided_sft": (OFTEN, "--model.guided_layer=1"),
}
STAGES = ("cot_sft", "direct_sft", "grpo")
PUBLISHED = {"sharegpt": ("cot_sft", "direct_sft"), "grpo_parquet": ("grpo",)}  # sets made for some stages alone


@dataclass(frozen=True)
class Run:
    """A command of ``kvg``: overlays by their names under ``configs``, and settings as on the command line."""

    command: str
    overlays: tuple[str, ...]
    settings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "-".join([self.command, *(name.partition("/")[2] for name in self.overlays)])


def content(name: str) -> dict[str, Any]:
    """The settings in a file."""
    return dict(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()))


def names(folder: str) -> list[str]:
    """Files of a folder."""
    return sorted(f"{folder}/{file.stem}" for file in (CONFIGS / folder).glob("*.yaml"))


def for_kvg() -> set[str]:
    """All files of the command ``kvg``, those of sweeps included; the others say what ``kvg-data`` does."""
    found = {file.relative_to(CONFIGS).with_suffix("").as_posix(): file for file in CONFIGS.rglob("*.yaml")}
    other = {"source", "sources", "steps", "teacher"}
    return {name for name, file in found.items() if not other & set(yaml.safe_load(file.read_text()))}


def options() -> set[str]:
    """Files of the lab that set a few options of stage 2, above a stage and its data."""
    return {name for name in names("lab") if name in for_kvg() and not is_whole(name)}


def is_whole(name: str) -> bool:
    """Whether a file needs no other one before it."""
    settings = content(name)
    return all("class_path" in settings.get(part, {}) for part in ("model", "data"))


def is_evaluation(name: str) -> bool:
    """Whether a data file is for ``test`` and ``predict``."""
    return "class_path" in content(name)["data"]


def merged(run: Run) -> dict[str, Any]:
    """Its files one above the other, and its settings; enough to tell devices, strategy, backbone and paths."""
    found: dict[str, Any] = {}
    for name in run.overlays:
        found = _over(found, content(name))
    for setting in run.settings:
        path, _, value = setting.removeprefix("--").partition("=")
        *folders, last = path.split(".")
        place = found
        for folder in folders:
            place = place[folder] if folder in place else place["init_args"][folder]
        place.get("init_args", place)[last] = yaml.safe_load(value)
    return found


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {key: _over(below[key], value) for key, value in above.items() if _maps(value, below.get(key))}
    return {**below, **above, **both}


def _maps(*values: Any) -> bool:
    return all(isinstance(value, dict) for value in values)


def alike(folder: str) -> list[Iterator[str]]:
    """Files that differ in nothing but their checkpoint are one; they take turns."""
    groups: dict[str, list[str]] = {}
    for name in names(folder):
        settings = content(name)
        if folder == "backbone":
            settings["model"]["init_args"]["backbone"]["init_args"]["checkpoint"] = None
        groups.setdefault(json.dumps(settings, sort_keys=True), []).append(name)
    return [cycle(own) for own in groups.values()]


def strategies() -> list[str]:
    """One process first, which is cheapest where any will do."""
    return sorted(names("strategy"), reverse=True)


def trainings() -> list[Run]:
    """Every combination of stage, backbone, strategy, loss and data."""
    backbones, runs = alike("backbone"), []
    for stage in names("stage"):
        losses = names("loss") if stage == "stage/grpo" else [""]
        short = stage.partition("/")[2]
        sets = [name for name in names("data") if not is_evaluation(name)]
        sets = [name for name in sets if short in PUBLISHED.get(name.partition("/")[2], STAGES)]
        for strategy, loss, data, backbone in product(strategies(), losses, sets, backbones):
            overlays = (stage, next(backbone), data, strategy, loss)
            runs.append(Run("fit", tuple(name for name in overlays if name)))
        if stage == "stage/grpo":  # an engine does not care what it stands beside
            runs += [Run("fit", (*runs[-1].overlays, one)) for one in names("engine") if one not in NEEDS_VLLM]
    return runs


def covering(runs: Sequence[Run], size: int) -> list[Run]:
    """As few of these runs as it takes for every ``size`` files that go together to meet in one."""
    wanted = {files for run in runs for files in combinations(run.overlays, size)}
    chosen: list[Run] = []
    while wanted:
        best = max(runs, key=lambda run: len(wanted & set(combinations(run.overlays, size))))  # the first of the best
        wanted -= set(combinations(best.overlays, size))
        chosen.append(best)
    return sorted(chosen, key=runs.index)


def evaluations() -> list[Run]:
    """Every combination of stage, backbone, strategy and evaluation set."""
    backbones = alike("backbone")
    sets = [name for name in names("data") if is_evaluation(name)]
    return [
        Run("test", (stage, next(backbone), data, strategy))
        for stage, strategy, data, backbone in product(names("stage"), strategies(), sets, backbones)
    ]


def experiments() -> list[Run]:
    """Every experiment alone, or behind the stage that its name ends in."""
    runs = []
    for name in [*names("experiment"), *(name for name in names("lab") if name in for_kvg())]:
        before: Sequence[str] = ()
        if not is_whole(name):
            stages = [stage for stage in STAGES if name.endswith(f"demo_{stage}")]
            if not stages:  # options of stage 2 that need data of their own, see tests/modules
                continue
            before = (f"stage/{stages[0]}", "backbone/lab")
        runs.append(Run("fit", (*before, name), SMALLER.get(name, ())))
    return runs


def under_slurm() -> list[Run]:
    """Every whole experiment with the overlay for SLURM."""
    whole = [run for run in experiments() if len(run.overlays) == 1]
    return [Run("fit", (*run.overlays, name), run.settings) for name in names("slurm") for run in whole]


def sweeps() -> list[Run]:
    """The first seed of every variant, and its evaluation."""
    runs = []
    for name in names("sweeps"):
        if "question" in content(name):  # for `kvg-data experiments`
            continue
        experiment = load_experiment(CONFIGS / f"{name}.yaml")
        for variant in experiment.variants:
            for command, part in (("fit", variant.fit), ("predict", variant.predict)):
                filled = (
                    f"--{key}={experiment.fill(value, variant.name, experiment.seeds[0])}"
                    for key, value in part.settings.items()
                )
                overlays = tuple(path.removeprefix("configs/").removesuffix(".yaml") for path in part.configs)
                runs.append(Run(command, overlays, tuple(filled)))
    return runs
