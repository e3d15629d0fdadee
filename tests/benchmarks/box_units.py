"""How often a guessed unit of boxes changes a verdict: two common guesses against the declared unit.

    python tests/benchmarks/box_units.py

The answers are the 600 of ``tests/text/parity/published.jsonl``, with true boxes on the 0-1000 grid. Each is put on
pictures of several sizes in three conventions: on the grid, as it stands; in pixels of the picture, as a model with
absolute boxes would write it; and mixed, every second answer in pixels although the grid is declared. A verdict is
IoU >= 0.5. The guesses:

- ``best of two``: the box is read as pixels and on the grid, and the reading with the higher IoU counts
  (lmms-eval 0.7.3, task refcoco_grounding);
- ``largest number``: up to 1.5 the numbers are shares, up to 1000 they are on the grid, above that they are pixels
  (VLMEvalKit, RefCOCO, in ms_vlmeval 0.0.20).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from kvg.evaluation.records.scoring import IOU_GATE, best_iou
from kvg.formats.written_boxes import written_boxes
from kvg.types import Box

ANSWERS = Path(__file__).parents[1] / "text" / "parity" / "published.jsonl"
SIZES = ((448, 448), (640, 480), (1000, 1000), (1344, 896), (4000, 3000))
CONVENTIONS = ("0-1000", "pixels", "mixed")
SHARES, GRID = 1.5, 1000.0

Case = tuple[Box, list[Box]]  # numbers of the answer, true boxes; both on the grid


def read_cases(path: Path = ANSWERS) -> list[Case]:
    """Reads the last box of each answer; leaves out answers without a box, and boxes in shares."""
    cases = []
    for line in path.read_text("utf-8").splitlines():
        answer, truths = json.loads(line)[:2]
        boxes = written_boxes(answer)
        if boxes and max(map(abs, boxes[-1].numbers)) > SHARES:
            x1, y1, x2, y2 = boxes[-1].numbers
            cases.append(((x1, y1, x2, y2), [tuple(truth) for truth in truths]))
    return cases


def scaled(box: Sequence[float], width: float, height: float) -> Box:
    """Converts a box on the grid to pixels."""
    x1, y1, x2, y2 = (v * side / GRID for v, side in zip(box, (width, height) * 2, strict=True))
    return x1, y1, x2, y2


def by_declaration(box: Box, convention: str, width: int, height: int, truths: list[Box]) -> float:
    """IoU in the declared unit."""
    return best_iou(box if convention == "pixels" else scaled(box, width, height), truths)


def by_best_of_two(box: Box, convention: str, width: int, height: int, truths: list[Box]) -> float:
    """The higher IoU of both readings."""
    return max(best_iou(box, truths), best_iou(scaled(box, width, height), truths))


def by_largest_number(box: Box, convention: str, width: int, height: int, truths: list[Box]) -> float:
    """IoU in the unit that the largest number suggests; clipped, with sorted corners."""
    largest = max(map(abs, box))
    factor = GRID if largest <= SHARES else 1.0
    if largest <= GRID:
        box = scaled([v * factor for v in box], width, height)
    x1, x2 = sorted(min(max(v, 0.0), width) for v in box[::2])
    y1, y2 = sorted(min(max(v, 0.0), height) for v in box[1::2])
    return best_iou((x1, y1, x2, y2), truths)


RULES: dict[str, Callable[..., float]] = {
    "declared": by_declaration,
    "best of two": by_best_of_two,
    "largest number": by_largest_number,
}


def verdicts(cases: Sequence[Case], convention: str, width: int, height: int) -> dict[str, list[bool]]:
    """Verdicts of each rule on all answers.

    Args:
        cases: answers and true boxes on the grid.
        convention: how the answers are written.
        width: width of the picture, in pixels.
        height: height of the picture, in pixels.
    """
    result: dict[str, list[bool]] = {name: [] for name in RULES}
    for number, (numbers, truths) in enumerate(cases):
        on_grid = convention == "0-1000" or (convention == "mixed" and number % 2 == 0)
        written = numbers if on_grid else scaled(numbers, width, height)
        x1, y1, x2, y2 = (float(round(v)) for v in written)
        true_boxes = [scaled(truth, width, height) for truth in truths]
        for name, rule in RULES.items():
            iou = rule((x1, y1, x2, y2), convention, width, height, true_boxes)
            result[name].append(iou >= IOU_GATE)
    return result


def main() -> int:
    """Prints the table."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    cases = read_cases()
    print(
        f"{len(cases)} answers with a box; Acc@0.5 in %, and numbers of verdicts that differ from the declared unit's\n"
    )
    heads = ("answers in", "picture", "declared", "best of two", "wrong to right", "largest number")
    print("| " + " | ".join((*heads, "wrong to right", "right to wrong")) + " |\n" + "|--" * 8 + "|")
    for convention in CONVENTIONS:
        for width, height in SIZES:
            made = verdicts(cases, convention, width, height)
            declared, best, largest = (made[name] for name in RULES)
            rates = [f"{100 * sum(one) / len(one):.1f}" for one in (declared, best, largest)]
            gained = [sum(b and not a for a, b in zip(declared, one, strict=True)) for one in (best, largest)]
            lost = sum(a and not b for a, b in zip(declared, largest, strict=True))
            cells = (convention, f"{width}x{height}", rates[0], rates[1], gained[0], rates[2], gained[1], lost)
            print("| " + " | ".join(map(str, cells)) + " |")
    swapped = sum(x1 > x2 or y1 > y2 for (x1, y1, x2, y2), _ in cases)
    print(f"\n{swapped} answers have swapped corners; only 'largest number' sorts them")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
