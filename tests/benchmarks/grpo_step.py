"""Times whole optimizer steps of our GRPO, from image bytes to updated weights, with completions of a fixed length.

    python tests/benchmarks/grpo_step.py --checkpoint FOLDER --json out.json

On a GPU: ``--device cuda --precision bf16-mixed``, on a checkpoint made by
``checkpoints.py --size 2b --vocabulary 151936``.

The work is fixed so that a peer can be given the same: prompts come in one order, no token ends a completion, and a
reward of their letters keeps advantages apart, since random weights answer no box. With ``--free`` completions end as
they do in training; their lengths are then a matter of chance, and the seconds of a token are what compares.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import sys
import tempfile
import zlib
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))


def arguments() -> argparse.ArgumentParser:
    """The options that our runner and the peer's share."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of a Qwen2-VL checkpoint")
    parser.add_argument("--group", type=int, default=8, help="completions a prompt (default 8)")
    parser.add_argument("--prompts", type=int, default=1, help="prompts a step (default 1)")
    parser.add_argument("--completion", type=int, default=64, help="tokens a completion, exactly (default 64)")
    parser.add_argument("--free", action="store_true", help="end tokens end completions; --completion is the longest")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the completions (default 1)")
    parser.add_argument("--beta", type=float, default=0.0, help="weight of the KL (default 0)")
    parser.add_argument("--image-size", type=int, default=448, help="side of the pictures in pixels (default 448)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5, help="timed steps (default 5)")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them (default 2)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the weights")
    parser.add_argument("--lora", type=int, default=0, help="rank of adapters (default 0: whole training)")
    parser.add_argument("--json", type=Path, help="write the result there, too")
    return parser


def with_lengths(found: dict[str, Any], lengths: list[list[int]], warmup: int) -> dict[str, Any]:
    """Adds how many tokens were sampled, and the seconds of one of them.

    Args:
        found: of ``PhaseClock.report``.
        lengths: of the completions, for each step.
        warmup: steps that do not count.
    """
    tokens = [sum(step) for step in lengths]
    if len(tokens) != len(found["steps_s"]):
        raise RuntimeError(f"{len(tokens)} batches of completions in {len(found['steps_s'])} steps")
    seconds = [step / num for step, num in zip(found["steps_s"], tokens, strict=True)][warmup:]
    rows = [length for step in lengths[warmup:] for length in step]
    return {**found, "token_s": median(seconds), "mean_length": mean(rows), "lengths": lengths}


def checksum(tokens: list[int]) -> int:
    """A number that tells prompts apart."""
    return zlib.crc32(repr(tokens).encode())


def tell(found: dict[str, Any], path: Path | None) -> None:
    """Prints a result as JSON, and writes it where that is asked for."""
    print(json.dumps(found))
    if path:
        path.write_text(json.dumps(found) + "\n")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Trains for some steps in this process; returns times, phases and memory."""
    import lightning as L
    import torch
    from lightning.pytorch.callbacks import Callback
    from phases import PhaseClock

    torch.set_num_threads(args.threads)
    from checkpoints import lab_samples

    from data_modules import GRPODataModule
    from kvg.backbones.backbone import Backbone
    from kvg.backbones.lora import LoRASettings
    from kvg.inference.rollout_engine import BuiltInEngine
    from kvg.losses.family import DAPOLoss
    from kvg.modules import grpo
    from kvg.rewards.base import Reward
    from kvg.rewards.combine import WeightedReward
    from kvg.rewards.iou import IoUReward
    from kvg.shards.writer import ShardWriter
    from kvg.work.cpu import keep_freed_memory

    keep_freed_memory()

    class Letters(Reward):
        """A number from the text alone, different for almost all texts."""

        def __call__(self, answers: Any, samples: Any) -> torch.Tensor:
            return torch.tensor([zlib.crc32(answer.completion.text.encode()) % 1000 / 1000 for answer in answers])

    class Engine(BuiltInEngine):
        """Keeps lengths, and what speculation did."""

        def learn(self, out: Any) -> None:
            lengths.append(out.completion_mask.sum(1).tolist())
            counts.append(out.counts)
            super().learn(out)

    lengths: list[list[int]] = []
    counts: list[Any] = []
    prompts: list[int] = []
    gpu = args.device == "cuda"
    clock = PhaseClock(torch.cuda.synchronize) if gpu else PhaseClock()
    kernels: list[str] = []
    logging.getLogger("kvg.backbones.shared_prefix").setLevel(logging.INFO)
    logging.getLogger("kvg.backbones.shared_prefix").addFilter(lambda record: kernels.append(record.getMessage()))
    backbone = Backbone(
        str(args.checkpoint), dtype=args.dtype, freeze_vision=args.freeze_vision, freeze_projector=args.freeze_vision,
        max_pixels=12_845_056, share_prefix=not args.plain,
        decoding="one_token" if args.no_speculation else args.decoding,
        lora=LoRASettings(args.lora, 2 * args.lora) if args.lora else None,
        gradient_checkpointing=args.recompute,
    )  # fmt: skip
    if not args.free:
        backbone.end_token_ids = (-1,)
    module = grpo.GRPOModule(
        backbone,
        WeightedReward({"iou": IoUReward(), "letters": Letters()}),
        DAPOLoss(beta=args.beta),
        partial(torch.optim.AdamW, lr=1e-6, fused=True),
        group_size=args.group,
        temperature=args.temperature,
        max_new_tokens=args.completion,
        engine=Engine(),
        export=False,
    )

    class Steps(Callback):
        def on_train_start(self, *_: Any) -> None:
            clock.wrap(module.backbone, "with_visual_tokens", "vision")
            clock.wrap(module.engine, "sample", "sample")
            clock.wrap(module, "_rewards", "reward")
            clock.wrap(grpo, "reference_logprobs", "reference")
            clock.wrap(module.backbone, "completion_logprobs", "forward")
            clock.wrap(module, "manual_backward", "backward")
            clock.wrap(module.trainer.optimizers[0], "step", "optimizer")
            clock.restart()

        def on_train_batch_end(self, _: Any, __: Any, ___: Any, batch: Any, *____: Any) -> None:
            clock.step()
            prompts.append(checksum(batch.input_ids[0][batch.attention_mask[0].bool()].tolist()))

    total = args.warmup + args.steps
    samples = lab_samples(total * args.prompts, args.image_size)
    with tempfile.TemporaryDirectory() as folder:
        with ShardWriter(Path(folder) / "set", len(samples)) as writer:
            for sample in samples:
                writer.write(sample)
        data = GRPODataModule(str(Path(folder) / "set"), batch_size=args.prompts, shuffle_buffer=0)
        data.connect(backbone)
        trainer = L.Trainer(
            accelerator=args.device, devices=1, precision=args.precision, max_steps=total, logger=False,
            enable_checkpointing=False, default_root_dir=folder, enable_progress_bar=False,
            enable_model_summary=False, use_distributed_sampler=False, callbacks=[Steps()],
        )  # fmt: skip
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        trainer.fit(module, data)
    num_prompt = len(backbone.processor.encode(samples[0], mode="think", target=None).input_ids)
    found = with_lengths(clock.report(args.warmup), lengths, args.warmup)
    found |= {"before_mib": before, "prompt_tokens": num_prompt, "prompts": prompts, "kernels": kernels}
    found["tokens_per_pass"] = mean(1.0 if step is None else step.tokens_per_pass for step in counts[args.warmup :])
    if gpu:
        found |= {"gpu": torch.cuda.get_device_name(), "peak_gpu_mib": torch.cuda.max_memory_allocated() // 2**20}
    return {**found, "versions": {"torch": torch.__version__, "lightning": L.__version__}}


def main() -> int:
    """Runs and prints JSON."""
    parser = arguments()
    parser.description = __doc__.splitlines()[0]
    parser.add_argument("--plain", action="store_true", help="repeat each prompt for its completions")
    parser.add_argument("--no-speculation", action="store_true", help="sample one token a pass")
    parser.add_argument("--decoding", choices=("speculative", "one_token", "fixed_shape"), default="speculative")
    parser.add_argument("--recompute", action="store_true", help="activations in the backward pass")
    parser.add_argument("--freeze-vision", action="store_true", help="leave tower and projector as they are")
    parser.add_argument("--precision", default="32-true", help="the Trainer's (default 32-true)")
    args = parser.parse_args()
    tell(run(args), args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
