"""Plans in the heads of configs: made by `kvg plan --write`, and remade by a test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

MARK = "# Plan: "  # and the command; the lines of its answer follow


def with_plan(text: str, command: str, lines: Sequence[str]) -> str:
    r"""A config with a plan in its head, in place of an earlier one.

    >>> print(with_plan("# Stage 1.\ntrainer: {}\n", "kvg plan -c a.yaml", ["fits 80 GB"]), end="")
    # Stage 1.
    # Plan: kvg plan -c a.yaml
    #   fits 80 GB
    trainer: {}
    """
    head, body = _split(text)
    kept = [line for line in head if line not in _plan_of(head)]
    return "".join(f"{line}\n" for line in [*kept, f"{MARK}{command}", *(f"#   {line}" for line in lines)]) + body


def plan_in(path: Path) -> tuple[str, list[str]] | None:
    """The command and the lines of the plan in a config's head; None where there is none."""
    block = _plan_of(_split(path.read_text("utf-8"))[0])
    return (block[0].removeprefix(MARK), [line.removeprefix("#   ") for line in block[1:]]) if block else None


def _split(text: str) -> tuple[list[str], str]:
    lines = text.splitlines(keepends=True)
    end = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return [line.rstrip("\n") for line in lines[:end]], "".join(lines[end:])


def _plan_of(head: Sequence[str]) -> list[str]:
    start = next((number for number, line in enumerate(head) if line.startswith(MARK)), None)
    if start is None:
        return []
    block = [head[start]]
    for line in head[start + 1 :]:
        if not line.startswith("#   "):
            break
        block.append(line)
    return block
