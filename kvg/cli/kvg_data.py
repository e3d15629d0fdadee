"""The door ``kvg-data``: everything that does not train. Starts in a blink, as each command is imported when named.

A command is a file of this folder with ``add_arguments(parser)`` and ``run(args) -> int``; the module itself imports
nothing heavy at its top.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence

from kvg.config.overlay_files import shipped
from kvg.config.search_path import search_user_folders_last
from kvg.errors import KVGError

COMMANDS = {
    "scan": "open every picture of a project's sources; write which can be used, who may see it, and what is wrong",
    "box": "ask a grounding model for the boxes that pictures lack; make pages on which a person ticks the wrong ones",
    "probe": "ask a model what is on single-entity pictures, to choose from four names: how well it knows each entity",
    "compose": "make composites of 2-6 entities from a folder of photographs, or from the lab, as shards",
    "rationalize": "write a rationale for every sample of a set of shards",
    "cards": "write the lab's cards as text, to be replayed in stage 1",
    "exam": "measure the skills of the lab's model apart: seeing, boxing, picking, recalling",
    "convert": "write shards, ShareGPT JSON, GRPO or KVG-Bench parquet from any of them, or from lists (RefCOCO, FOCI)",
    "filter": "let a stage-1 model try each sample several times; keep what it sometimes gets right",
    "shard": "mix the samples of one or several sets into the final training set, in shards of equal size",
    "shortcuts": "see how a set is distributed, and by what else than its looks the object asked for could be found",
    "inspect": "show what is in shards or in a published file: counts, and pictures with boxes and rationales",
    "verify": "check shards against their manifest, sample by sample",
    "run": "all of it for a project file: scan, box, probe, compose, rationalize, filter, shard; what is done stays",
    "base": "put a freshly pretrained lab model into the package, examined and signed",
    "demo": "run the whole method end to end in the lab",
    "sweep": "train and ask variants by seeds, as an experiment's file names them; a table of what is more than luck",
    "score": "judge a file of answers without a model, by the strict parser or as either published evaluation does",
    "compare": "compare runs on the same cases: accuracies with intervals, which differences are more than luck",
    "report": "one page of one run or of several: figures, differences, failure signatures, and cases to filter",
}

EXAMPLES = {
    "scan": "kvg-data scan project.yaml --workers 2",
    "box": "kvg-data box project.yaml",
    "compose": "kvg-data compose project.yaml --workers 2",
    "probe": "kvg-data probe project.yaml",
    "rationalize": "kvg-data rationalize --in runs/birds/composites/train --out runs/told --teacher teacher.yaml",
    "cards": "kvg-data cards --out runs/cards.jsonl",
    "exam": "kvg-data exam --checkpoint lab",
    "convert": "kvg-data convert --in runs/birds/shards/train --to sharegpt --out cot-sft.json",
    "filter": "kvg-data filter --in runs/birds/shards/train --out runs/kept --checkpoint runs/cot_sft/export",
    "shard": "kvg-data shard --in runs/birds/rationales/train runs/cars/rationales/train --out runs/both",
    "shortcuts": "kvg-data shortcuts runs/birds/composites/train",
    "inspect": "kvg-data inspect runs/birds/shards/train --num 48",
    "verify": "kvg-data verify runs/birds/shards/train",
    "run": "kvg-data run project.yaml --workers 2",
    "base": "kvg-data base --run runs/lab-base",
    "demo": "kvg-data demo --seed 1",
    "sweep": "kvg-data sweep configs/sweeps/reward_gate.yaml --jobs 2",
    "score": "kvg-data score answers.jsonl --parser published-v2 --out scored.jsonl",
    "compare": "kvg-data compare runs/base sft=runs/sft/seed0,runs/sft/seed1,runs/sft/seed2 --out runs/comparison",
    "report": "kvg-data report --runs base=runs/base mine=runs/mine --set runs/data/test --out runs/report",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: arguments after the program's name; those of the process by default.

    Returns:
        The command's exit code, or 2 for data or settings that cannot be used (one line on stderr says which).
    """
    args = [shipped(arg) for arg in (sys.argv[1:] if argv is None else argv)]
    search_user_folders_last(args)
    parser = argparse.ArgumentParser(prog="kvg-data", description="Everything that does not train.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    named = args[0] if args else ""
    for name, text in COMMANDS.items():
        told = f"example: {EXAMPLES[name]}"
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", epilog=told)
        if name == named:
            importlib.import_module(f"kvg.cli.{name}").add_arguments(sub)
    try:
        options = parser.parse_args(args)
        return int(importlib.import_module(f"kvg.cli.{named}").run(options) or 0)
    except SystemExit as stop:  # argparse has said what is wrong, or has printed the help
        return stop.code if isinstance(stop.code, int) else 2
    except KVGError as error:
        print(f"kvg-data: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if argv is None:  # nothing is left to do but to end, which a second Ctrl-C may cut short
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        print("kvg-data: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output has read enough (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush would tell
        return 141


if __name__ == "__main__":
    sys.exit(main())
