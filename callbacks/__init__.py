"""Callbacks that monitor a run. Configs name them; nothing else imports them."""

from __future__ import annotations

from callbacks.box_convention import BoxConvention
from callbacks.collapse import CollapseGuard
from callbacks.pictures import BoxPictures
from callbacks.progress import StageProgress
from callbacks.requeue import Requeue
from callbacks.rollout_files import RolloutFiles
from callbacks.throughput import Throughput

__all__ = ["BoxConvention", "BoxPictures", "CollapseGuard", "Requeue", "RolloutFiles", "StageProgress", "Throughput"]
