"""What the knowledge-aware reward does to advantages, by how they are normalised: a table from rollouts of a lab model.

    python tests/benchmarks/knowledge_reward.py --checkpoint runs/demo/cot_sft/export --shards runs/demo/data/hard

Known entities are on the highest mastery level here, unknown ones on the lowest. A cell is the mean absolute advantage
that the box reward alone gives to a completion: how much is learnt from entities of that kind.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

NORMALISATIONS = ("group_std", "batch_std", "none")


def main() -> int:
    """Samples groups and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of a stage-1 model")
    parser.add_argument("--shards", type=Path, required=True, help="composites of the lab")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--temperature", type=float, default=0.7)
    args = parser.parse_args()

    import torch

    from kvg.backbones.answers import completions, read_answers
    from kvg.backbones.backbone import Backbone
    from kvg.formats.stores import open_store
    from kvg.rewards.iou import IoUReward
    from kvg.rewards.knowledge import KnowledgeReward
    from kvg.rl.advantage import group_advantage
    from kvg.rl.rollout import rollout
    from kvg.rl.sampling import SamplingSettings
    from kvg.shards.reader import Tally
    from kvg.types import Completion
    from kvg.work.cpu import prepare_cpu

    prepare_cpu()
    backbone = Backbone(str(args.checkpoint)).eval()
    samples = [sample for part in open_store(str(args.shards)).parts() for _, sample in part.read(Tally())]
    samples = samples[: args.prompts]
    generated: list[Completion] = []
    for start in range(0, len(samples), 32):
        chosen = samples[start : start + 32]
        examples = [backbone.processor.encode(sample, mode="think", target=None) for sample in chosen]
        batch = backbone.processor.collate(examples, chosen, pad_left=True)
        generator = torch.Generator().manual_seed(start)
        out = rollout(backbone, batch, SamplingSettings(256, args.temperature), args.group, generator)
        generated += completions(backbone, out)
        print(f"{start + len(chosen)} of {len(samples)} prompts", file=sys.stderr)
    asked = [sample for sample in samples for _ in range(args.group)]
    answers = read_answers(backbone, generated, asked)
    known = torch.tensor([sample.knowledge == "known" for sample in asked])
    rewards = {"IoU": IoUReward(0.5), "knowledge-aware": KnowledgeReward(None, iou_threshold=0.5)}
    print(f"{len(samples)} prompts, {args.group} answers each; known {int(known.sum()) // args.group}")
    print("| advantage | reward | known | unknown | unknown / known |\n|--|--|--|--|--|")
    for normalisation in NORMALISATIONS:
        for name, reward in rewards.items():
            values = reward(answers, asked)
            found = group_advantage(values, args.group, normalisation).abs()
            one, other = float(found[known].mean()), float(found[~known].mean())
            ratio = f"{other / one:.2f}" if one else "-"
            print(f"| `{normalisation}` | {name} | {one:.3f} | {other:.3f} | {ratio} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
