"""Makes composites from a source of tiles and writes them as shards."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kvg.composites.compositor import Compositor
from kvg.composites.settings import CompositorConfig
from kvg.config.settings import in_file, instantiate, named_class, read_yaml, settings_of
from kvg.errors import ConfigError, DataError
from kvg.pipeline.settings.classes import TILE_METHODS
from kvg.shards.job import ShardJob, shard_result
from kvg.shards.revision import revision
from kvg.shards.writer import ShardFile, check_shard_size
from kvg.work.files import disk_errors

log = logging.getLogger(__name__)

_MAX_WARNINGS = 20  # composites left out that are logged one by one
_MAX_NAMED = 3  # pictures per kind of fault that the summary names


@dataclass(frozen=True)
class ComposeResult:
    """A set of composites.

    Attributes:
        out: its folder.
        num_samples: number of composites in it.
        lost: index, picture, field and remedy of each composite that was left out.
    """

    out: Path
    num_samples: int
    lost: Sequence[tuple[int, str, str, str]]

    def summary(self) -> str:
        """Returns the numbers in words, and the pictures that caused the most losses."""
        kinds = Counter(str(field) for _, _, field, _ in self.lost)
        parts = []
        for kind, num in kinds.most_common():
            places = Counter(str(where) for _, where, field, _ in self.lost if field == kind)
            most = places.most_common(_MAX_NAMED + 1)
            named = [f"{where} {times}" for where, times in most[:_MAX_NAMED]] + ["..."] * (len(most) > _MAX_NAMED)
            parts.append(f"{num} for {kind} ({', '.join(named)})")
        lost = f"; {len(self.lost)} left out: {'; '.join(parts)}" if self.lost else ""
        return f"{self.num_samples} composites in {self.out}{lost}"


def compose(
    config: Mapping[str, Any],
    out: str | Path,
    num: int,
    seed: int = 0,
    samples_per_shard: int = 500,
    workers: int = 1,
    overwrite: bool = False,
) -> ComposeResult:
    """Makes one set, or resumes an interrupted one.

    Args:
        config: ``source`` and ``compositor``, see ``load_config``; other keys only become part of the identity.
        out: folder for the shards.
        num: number of composites.
        seed: seed of all composites.
        samples_per_shard: size of every shard but the last.
        workers: number of processes; it does not change the result.
        overwrite: whether a complete set is replaced.

    Raises:
        ConfigError: the config is wrong, a set exists, or a pair would be cut by the end of a shard.
        DataError: no composite could be made.
    """
    config, out = with_seed(config, seed), Path(out)
    compositor = build_compositor(config)
    for error in compositor.sampler.left_out:
        log.warning("%s: left out: %s", out, error)
    check_shard_size(samples_per_shard)
    if compositor.config.paired and samples_per_shard % 2:
        raise ConfigError("samples_per_shard", f"{samples_per_shard} cuts a pair (compositor.paired); set it to even")
    job = compose_job(config, out, num, samples_per_shard)
    job.open(overwrite)
    starts = range(0, num, samples_per_shard)
    units = [(number, start, min(num, start + samples_per_shard)) for number, start in enumerate(starts)]
    job.run(WriteComposites(compositor, out), units, workers, f"writing {out}")
    lost = [tuple(reason) for result in job.results(len(units)) for reason in result["lost"]]
    for reason in lost[:_MAX_WARNINGS]:
        log.warning("composite %s left out: %s: %s: %s", *reason)
    if len(lost) > _MAX_WARNINGS:
        log.warning("%d more composites left out", len(lost) - _MAX_WARNINGS)
    if not job.finish(len(units), seed, {**config, "num": num}):
        raise DataError(str(out), "source", "no composite could be made; see the messages above")
    return ComposeResult(out, num - len(lost), lost)


def with_seed(config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Returns the config of a set with the seed of the compositor."""
    return {**config, "compositor": {**(config.get("compositor") or {}), "seed": seed}}


def compose_job(config: Mapping[str, Any], out: Path, num: int, samples_per_shard: int) -> ShardJob:
    """Returns the job of one set. A shard depends only on the code, the config with its seed, and its number."""
    settings = [config, num, samples_per_shard]
    identity = json.dumps(settings, sort_keys=True)
    return ShardJob(out, "compose", identity, json.dumps([*settings, revision()], sort_keys=True))


@dataclass(frozen=True)
class WriteComposites:
    """Writes the composites of a unit as one shard.

    Attributes:
        compositor: makes the composites.
        folder: folder of the set.
    """

    compositor: Compositor
    folder: Path

    def __call__(self, unit: tuple[int, int, int]) -> dict[str, Any]:
        """Writes a shard.

        Args:
            unit: its number, and the first and the last + 1 index of its composites.
        """
        number, start, stop = unit
        lost: list[tuple[int, str, str, str]] = []
        with ShardFile(self.folder, number) as shard, disk_errors(self.folder):
            for index in range(start, stop):
                try:
                    shard.write(self.compositor.sample(index))
                except DataError as error:
                    lost.append((index, error.where, error.field, error.remedy))
            return shard_result(shard, lost=lost)


def load_config(path: str | Path, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Reads a YAML with ``source`` and ``compositor``.

    Args:
        path: path of the file.
        settings: overrides ``NAME=VALUE``, with a dotted name and a value in YAML.

    Raises:
        ConfigError: the file cannot be read, has other keys than these two, or a setting is wrong.
    """
    config = read_yaml(path)
    for setting in settings:
        override(config, setting)
    if "source" not in config:
        raise ConfigError("source", f"is missing in {path}; add `source: {{class_path: ..., init_args: ...}}`")
    for key in config:
        if key not in ("source", "compositor"):
            raise ConfigError(str(key), f"is unknown in {path}; use source and compositor")
    with in_file(path):
        named_class(config["source"], "source", TILE_METHODS)
        compositor_settings(config)
    return config


def override(config: dict[str, Any], setting: str) -> None:
    """Sets one value of a config.

    Args:
        config: is changed.
        setting: ``NAME=VALUE``, with a dotted name and a value in YAML.

    Raises:
        ConfigError: there is no ``=``, the value is not YAML, or the name leads through a value that is no section.

    >>> config = {"compositor": {"gap": 3}}
    >>> override(config, "compositor.k_weights={1: 1.0}")
    >>> config
    {'compositor': {'gap': 3, 'k_weights': {1: 1.0}}}
    """
    name, equals, text = setting.partition("=")
    *sections, key = name.split(".")
    if not equals or not key:
        raise ConfigError(f"--setting {setting}", "must be NAME=VALUE, such as compositor.neighbour_prob=0")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--setting {name}", f"'{text}' is not YAML; correct it") from error
    place: Any = config
    for section in sections:
        place = place.setdefault(section, {}) if isinstance(place, dict) else None
    if not isinstance(place, dict):
        raise ConfigError(f"--setting {name}", "leads through a value that has no settings; correct the name")
    place[key] = value


def build_compositor(config: Mapping[str, Any]) -> Compositor:
    """Builds the compositor that a config describes.

    Raises:
        ConfigError: a class does not exist, or a setting does not fit it.
    """
    settings = compositor_settings(config)
    return Compositor(instantiate(config["source"], "source", TILE_METHODS), settings)


def compositor_settings(config: Mapping[str, Any]) -> CompositorConfig:
    """Returns the settings of the compositor in a config.

    Raises:
        ConfigError: a setting is unknown, or outside its range.
    """
    return settings_of(CompositorConfig, config.get("compositor"), "compositor")
