"""The experiment file of a sweep: settings of training and prediction, variants, seeds, and comparisons."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Final

from kvg.config.settings import in_file, read_yaml, settings_of
from kvg.errors import ConfigError
from kvg.evaluation.comparison.matching import GROUPINGS
from kvg.workflow.dag import MODULES
from kvg.workflow.demo import config_path

SECTIONS: Final = ("out", "seeds", "prepare", "fit", "axes", "predict", "compare")
JOINT: Final = "+"  # joins the values of several axes in the name of a variant
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # names of folders and logs
_PLACEHOLDER: Final = re.compile(r"\{\w+\}")


@dataclass(frozen=True)
class Overlays:
    """Settings of ``kvg fit`` or ``kvg predict``: config files, and single settings by dotted name."""

    configs: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def merged(self, other: Overlays) -> Overlays:
        """Returns these settings, overridden by the other ones."""
        kept = {name: value for name, value in self.settings.items() if name not in other.settings}
        return Overlays((*self.configs, *other.configs), {**kept, **other.settings})


@dataclass(frozen=True)
class Choice:
    """One value of an axis: its settings of training and prediction."""

    fit: Overlays = field(default_factory=Overlays)
    predict: Overlays = field(default_factory=Overlays)


@dataclass(frozen=True)
class Comparison:
    """Section ``compare``: the baseline, and what is compared.

    Attributes:
        baseline: name of the variant that others are compared with; None for the first one.
        by: groupings.
        curves: tags of logged curves.
    """

    baseline: str | None = None
    by: Sequence[str] = ("split", "knowledge")
    curves: Sequence[str] = ("val/iou_acc",)

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a grouping does not exist.
        """
        for grouping in self.by:
            if grouping not in GROUPINGS:
                raise ConfigError("compare.by", f"'{grouping}' is none of {', '.join(GROUPINGS)}")


@dataclass(frozen=True)
class Variant:
    """A variant: one value of every axis."""

    name: str
    fit: Overlays
    predict: Overlays


@dataclass(frozen=True)
class Command:
    """A command in section ``prepare``, and the file or folder that it makes."""

    run: str
    makes: str


@dataclass(frozen=True)
class Preparation:
    """A parsed command of section ``prepare``; it runs once, before all runs."""

    name: str
    command: tuple[str, ...]
    makes: Path


@dataclass(frozen=True)
class Experiment:
    """An experiment.

    Attributes:
        out: folder of all outputs.
        seeds: seeds of the training of each variant.
        prepare: commands, in order.
        variants: variants, the baseline first.
        by: groupings of the comparison.
        curves: tags of logged curves that are compared.
    """

    out: Path
    seeds: tuple[int, ...]
    prepare: tuple[Preparation, ...]
    variants: tuple[Variant, ...]
    by: Sequence[str]
    curves: Sequence[str]

    def fill(self, value: Any, variant: str = "", seed: int | None = None) -> str:
        """Converts a value to a command-line argument, and fills in ``{out}``, ``{variant}`` and ``{seed}``.

        Raises:
            ConfigError: it contains another placeholder, or one without a value here; or it cannot be JSON.
        """
        try:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        except TypeError as error:
            raise ConfigError(str(value), f"cannot be a command-line argument ({error}); put it in quotes") from error
        known = {"{out}": str(self.out), "{variant}": variant, "{seed}": "" if seed is None else str(seed)}
        for name in _PLACEHOLDER.findall(text):
            if not known.get(name):
                there = ", ".join(key for key, needed in known.items() if needed)
                raise ConfigError(name, f"in '{text}' has no value; there are {there}")
            text = text.replace(name, known[name])
        return text


def load_experiment(path: str | Path) -> Experiment:
    """Reads an experiment file.

    Raises:
        ConfigError: the file cannot be read, or a key is unknown, missing or wrong.
    """
    with in_file(path):
        return _experiment(read_yaml(path), Path(path))


def _experiment(values: Mapping[str, Any], path: Path) -> Experiment:
    for key in values:
        if key not in SECTIONS:
            raise ConfigError(str(key), f"is unknown; choose from {', '.join(SECTIONS)}")
    axes = _named(values.get("axes"), "axes")
    common = {name: settings_of(Overlays, values.get(name), name) for name in ("fit", "predict")}
    for name, overlays in common.items():
        if not overlays.configs:
            raise ConfigError(f"{name}.configs", "is missing; name the config of a stage, then backbone and data")
    compare = settings_of(Comparison, values.get("compare"), "compare")
    out = values.get("out")
    experiment = Experiment(
        out=Path(_text(out, "out") if out is not None else f"runs/sweeps/{path.stem}"),
        seeds=_seeds(values.get("seeds")),
        prepare=(),
        variants=_baseline_first(_variants(axes, common), compare.baseline),
        by=compare.by,
        curves=compare.curves,
    )
    prepare = _named(values["prepare"], "prepare") if values.get("prepare") else {}
    made = tuple(_preparation(experiment, name, value) for name, value in prepare.items())
    return replace(experiment, prepare=made)


def _variants(axes: Mapping[str, Any], common: Mapping[str, Overlays]) -> tuple[Variant, ...]:
    """Returns every combination of one value of each axis."""
    values: list[list[tuple[str, dict[str, Overlays]]]] = []
    for axis, choices in axes.items():
        own = []
        for name, choice in _named(choices, f"axes.{axis}").items():
            where = f"axes.{axis}.{name}"
            changes = settings_of(Choice, choice, where)
            own.append((name, {"fit": changes.fit, "predict": changes.predict}))
        values.append(own)
    variants = []
    for combination in product(*values):
        chosen = dict(common)
        for _, parts in combination:
            chosen |= {part: chosen[part].merged(overlays) for part, overlays in parts.items()}
        variants.append(Variant(JOINT.join(name for name, _ in combination), **chosen))
    return tuple(variants)


def _baseline_first(variants: tuple[Variant, ...], baseline: str | None) -> tuple[Variant, ...]:
    if baseline is None:
        return variants
    names = [variant.name for variant in variants]
    if baseline not in names:
        raise ConfigError("compare.baseline", f"'{baseline}' is not a variant; there are {', '.join(names)}")
    return tuple(sorted(variants, key=lambda variant: variant.name != baseline))


def _preparation(experiment: Experiment, name: str, value: Any) -> Preparation:
    where = f"prepare.{name}"
    entry = settings_of(Command, value, where)
    _text(entry.makes, f"{where}.makes")
    try:
        words = shlex.split(experiment.fill(entry.run))
    except ValueError as error:
        raise ConfigError(f"{where}.run", f"cannot be parsed ({error}); correct the quotes") from error
    if not words or words[0] not in MODULES:
        raise ConfigError(f"{where}.run", f"must begin with one of {', '.join(MODULES)}")
    words = [config_path(word) if word.startswith("configs/") else word for word in words]
    return Preparation(name, tuple(words), Path(experiment.fill(entry.makes)))


def _seeds(value: Any) -> tuple[int, ...]:
    good = isinstance(value, list) and value and all(type(seed) is int and seed >= 0 for seed in value)
    if not good:
        raise ConfigError("seeds", f"{value!r} is not a list of whole numbers; write `seeds: [0, 1, 2]`")
    if len(set(value)) < len(value):
        raise ConfigError("seeds", f"{value} contains a seed twice, which would give the same run; remove one")
    return tuple(value)


def _named(value: Any, where: str) -> dict[str, Any]:
    """Checks that a value is a mapping whose keys can be names of folders; returns it."""
    if not isinstance(value, dict) or not value:
        raise ConfigError(where, f"{value!r} is not a mapping; write `{where.rpartition('.')[2]}: {{name: ...}}`")
    for name in value:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            remedy = "is not a name: give a text of letters, digits, '.', '_' and '-', in quotes if it is a number"
            raise ConfigError(f"{where}.{name}", remedy)
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(where, f"{value!r} is not a text; correct it")
    return value
