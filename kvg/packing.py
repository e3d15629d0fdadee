"""Several continuations of one prefix in one row: each sees the prefix and itself, never its siblings.

The prefix (an image and the text before it) is computed once however many segments follow it. A row is
[prefix | segment 1 | ... | segment S]; ``segments`` holds 0 for the prefix, 1..S, and -1 for padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedRow:
    """One row: all ``[L]``, ``position_ids`` ``[3, L]`` (temporal, height, width axes of M-RoPE)."""

    input_ids: Tensor
    labels: Tensor
    segments: Tensor
    position_ids: Tensor


def prefix_positions(input_ids: Sequence[int], image_token_id: int, grid: tuple[int, int] | None) -> Tensor:
    """M-RoPE positions of a prefix with at most one image, ``[3, L]``.

    Text advances all three axes by one; the image's tokens share one temporal position, and the text after it goes on
    at ``max(rows, columns)`` behind the image's start (not at the number of tokens).

    Args:
        input_ids: tokens of the prefix.
        image_token_id: the placeholder that stands once for each merged visual token.
        grid: rows and columns of merged visual tokens; None where there is no image.
    """
    out, position, seen = [], 0, 0
    for token in input_ids:
        if token == image_token_id and grid is not None:
            out.append((position, position + seen // grid[1], position + seen % grid[1]))
            seen += 1
            if seen == grid[0] * grid[1]:
                position += max(grid)
            continue
        out.append((position, position, position))
        position += 1
    return torch.tensor(out, dtype=torch.long).reshape(-1, 3).T


def pack_row(
    prefix: Sequence[int],
    segments: Sequence[tuple[Sequence[int], Sequence[int]]],
    image_token_id: int,
    grid: tuple[int, int] | None,
) -> PackedRow:
    """Joins a prefix and its segments.

    Args:
        prefix: tokens that every segment sees; may be empty.
        segments: (question tokens, answer tokens) pairs; only answers are learnt.
        image_token_id: see ``prefix_positions``.
        grid: see ``prefix_positions``.
    """
    head = prefix_positions(prefix, image_token_id, grid)
    start = int(head.max()) + 1 if len(prefix) else 0
    ids, labels, owner, positions = list(prefix), [-100] * len(prefix), [0] * len(prefix), [head]
    for number, (question, answer) in enumerate(segments, start=1):
        length = len(question) + len(answer)
        ids += [*question, *answer]
        labels += [*[-100] * len(question), *answer]
        owner += [number] * length
        positions.append(torch.arange(start, start + length).expand(3, -1))
    return PackedRow(torch.tensor(ids), torch.tensor(labels), torch.tensor(owner), torch.cat(positions, 1))


def pack_batch(rows: Sequence[PackedRow], pad_id: int) -> dict[str, Tensor]:
    """Right-pads rows to ``input_ids``, ``labels``, ``segments`` ``[B, L]`` and ``position_ids`` ``[3, B, L]``."""

    def pad(values: list[Tensor], fill: int) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=fill)

    positions = pad([row.position_ids.T for row in rows], 0)
    return {
        "input_ids": pad([row.input_ids for row in rows], pad_id),
        "labels": pad([row.labels for row in rows], -100),
        "segments": pad([row.segments for row in rows], -1),
        "position_ids": positions.permute(2, 0, 1).contiguous(),
    }


def packed_mask(segments: Tensor) -> Tensor:
    """Which token sees which: causal, within its own segment and the prefix.

    Args:
        segments: ``[B, L]``, see the module's head.

    Returns:
        bool ``[B, 1, L, L]``, True = may attend. Padding sees itself, so that no row of the softmax is empty.
    """
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    query, key = segments[:, :, None], segments[:, None, :]
    return (causal & ((key == query) | ((key == 0) & (query >= 0))))[:, None]
