"""All settings of a project file, checked before any step starts: types, names, and the classes that they name."""

from __future__ import annotations

from kvg.catalogue.box_rules import BoxSettings
from kvg.catalogue.project import Project
from kvg.config.settings import in_file, named_class
from kvg.pipeline.checks import CLIENT_METHODS, check_codec
from kvg.pipeline.compose import TILE_METHODS, compositor_settings
from kvg.pipeline.filter_settings import FilterSettings
from kvg.pipeline.probe import ProbeSettings
from kvg.pipeline.project_sets import ComposeSettings, compose_config, set_names
from kvg.pipeline.rationalize import RationaleSettings
from kvg.pipeline.shard import ProjectShards


def check_sections(project: Project) -> None:
    """Checks the settings of all steps; nothing is opened, loaded or asked.

    Raises:
        ConfigError: a setting is unknown or cannot work.
    """
    with in_file(project.path):
        for name, setting in project.sources.items():
            named_class(setting, f"sources.{name}", ("listings", "read"))
        _check_compose(project)
        project.settings("rationalize", RationaleSettings).check_classes()
        project.settings("shard", ProjectShards).settings(project.seed)
        for section in ("rationalize", "filter", "shard"):
            set_names(project, None, section)
        if "box" in project.later:
            _check_box(project.settings("box", BoxSettings))
        if "probe" in project.later:
            named_class(project.settings("probe", ProbeSettings).client, "probe.client", CLIENT_METHODS)
        if "filter" in project.later:
            project.settings("filter", FilterSettings)


def _check_compose(project: Project) -> None:
    settings = project.settings("compose", ComposeSettings)
    for setting in settings.sets.values():
        config = compose_config(settings, setting, project.path)
        named_class(config["source"], "compose.tiles", TILE_METHODS)
        compositor_settings(config)


def _check_box(settings: BoxSettings) -> None:
    for name in ("client", "second"):
        if (client := getattr(settings, name)) is not None:
            named_class(client, f"box.{name}", ("ask",))
    for name in ("codec", "second_codec"):
        if (codec := getattr(settings, name)) is not None:
            check_codec(codec, f"box.{name}")
