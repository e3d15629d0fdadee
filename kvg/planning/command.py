"""What ``kvg plan`` does."""

from __future__ import annotations

from collections.abc import Sequence

from kvg.config.overlay_files import shipped_configs, switches
from kvg.planning.known_sizes import size_of
from kvg.planning.plan import CARDS, make_plan
from kvg.planning.table import table, verdicts
from kvg.planning.training import read_training
from kvg.training.resolved import settings_here
from kvg.work.cpu import prepare_cpu


def planned(words: Sequence[str], size: str | None = None, tokens: int | None = None, card: float = 80) -> list[str]:
    """The lines of a plan.

    Args:
        words: arguments of ``kvg fit``.
        size: name of a published model, see ``kvg.planning.known_sizes``.
        tokens: of the longest sample or prompt.
        card: GB of the GPUs whose table is shown.

    Raises:
        ConfigError: the settings cannot work, or no size of the model is known.
    """
    prepare_cpu()
    training = read_training(settings_here(switches(shipped_configs(["fit", *words]))))
    plan = make_plan(training, size_of(training.checkpoint, training.family, size), tokens, (*CARDS, card))
    return [*table(plan, card), *([] if training.device == "cpu" else verdicts(plan))]
