"""All settings of a project file, checked before any step starts: types, names, and the classes that they name."""

from __future__ import annotations

from kvg.catalogue.box_rules import BoxSettings
from kvg.catalogue.project import Project
from kvg.cli.compose import TILE_METHODS, compositor_settings
from kvg.cli.filter import project_options, settle_section
from kvg.cli.probe import ProbeSettings
from kvg.cli.rationalize import RationaleSettings
from kvg.cli.shard import ProjectShards
from kvg.config.settings import in_file, named_class, settings_of
from kvg.errors import ConfigError
from kvg.pipeline.project_sets import ComposeSettings, compose_config, set_names
from kvg.pipeline.shard import ShardSettings
from kvg.rationales.teacher import LessonSettings
from kvg.text.box_codec import BoxCodec

ASKER_METHODS = ("ask", "summary")  # of a ``kvg.inference.request.Asker``


def check_sections(project: Project) -> None:
    """Checks the settings of all steps; nothing is opened, loaded or asked.

    Raises:
        ConfigError: a setting is unknown or cannot work.
    """
    with in_file(project.path):
        for name, setting in project.sources.items():
            named_class(setting, f"sources.{name}", ("listings", "read"))
        _check_compose(project)
        check_rationalize(project.settings("rationalize", RationaleSettings))
        shards = project.settings("shard", ProjectShards)
        ShardSettings(project.seed, shards.samples_per_shard, shards.shuffle, shards.knowledge)
        for section in ("rationalize", "filter", "shard"):
            set_names(project, None, section)
        if "box" in project.later:
            _check_box(project.settings("box", BoxSettings))
        if "probe" in project.later:
            named_class(project.settings("probe", ProbeSettings).asker, "probe.asker", ASKER_METHODS)
        if "filter" in project.later:
            settle_section(project_options(project.later["filter"], project.seed), project.path)


def _check_compose(project: Project) -> None:
    settings = project.settings("compose", ComposeSettings)
    for setting in settings.sets.values():
        config = compose_config(settings, setting, project.path)
        named_class(config["source"], "compose.tiles", TILE_METHODS)
        compositor_settings(config)


def check_rationalize(settings: RationaleSettings) -> None:
    """Checks what the settings of ``rationalize`` name.

    Raises:
        ConfigError: a class or setting does not exist or does not fit.
    """
    settings_of(LessonSettings, settings.lesson, "rationalize.lesson")
    check_codec(settings.codec, "rationalize.codec")
    if settings.teacher is not None:
        named_class(settings.teacher, "rationalize.teacher", ASKER_METHODS)


def _check_box(settings: BoxSettings) -> None:
    for name in ("asker", "second"):
        if (asker := getattr(settings, name)) is not None:
            named_class(asker, f"box.{name}", ("ask",))
    for name in ("codec", "second_codec"):
        if (codec := getattr(settings, name)) is not None:
            check_codec(codec, f"box.{name}")


def check_codec(setting: object, field: str) -> None:
    """Checks that a setting names a box convention.

    Raises:
        ConfigError: it does not.
    """
    kind, _ = named_class(setting, field)
    if not (isinstance(kind, type) and issubclass(kind, BoxCodec)):
        raise ConfigError(f"{field}.class_path", "is no box convention; take one of kvg.text.box_codec")
