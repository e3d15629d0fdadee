"""Times whole optimizer steps of TRL's GRPOTrainer on the work of ``grpo_step.py``.

Needs TRL (``pip install .[peer]``).

    python tests/benchmarks/trl_step.py --checkpoint FOLDER --trl FOLDER_OF_ANOTHER_RELEASE

Another release than the installed one: ``pip install --no-deps --target FOLDER trl==1.13.0``. Freed memory is kept, as
ours is (``kvg.work.cpu``).
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")


def processor_of(folder: Path) -> Any:
    """A Qwen2-VL processor without its video part, which cannot be built without torchvision."""
    from transformers import AutoTokenizer, Qwen2VLImageProcessorPil
    from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
    from transformers.processing_utils import ProcessorMixin

    from kvg.backbones.families.qwen2_vl import Qwen2VL

    class ImageTextProcessor(Qwen2VLProcessor):
        def __init__(
            self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None, **_: Any
        ) -> None:
            self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
            self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    tokenizer = AutoTokenizer.from_pretrained(folder)
    every_size = {"shortest_edge": 56 * 56, "longest_edge": 12_845_056}  # pictures are not resized
    pictures = Qwen2VLImageProcessorPil.from_pretrained(folder, size=every_size)
    return ImageTextProcessor(image_processor=pictures, tokenizer=tokenizer, chat_template=Qwen2VL.chat_template)


def dataset_of(num: int, side: int) -> Any:
    """The same scenes and questions as rows of TRL."""
    from checkpoints import lab_samples
    from datasets import Dataset, Features, Image, List, Value
    from PIL import Image as PILImage

    from kvg.text.prompts import prompt

    samples = lab_samples(num, side)
    rows = {
        "prompt": [[{"role": "user", "content": prompt(s.entity, "think")}] for s in samples],
        "image": [PILImage.open(io.BytesIO(s.image)) for s in samples],
    }
    turns = List({"role": Value("string"), "content": Value("string")})
    return Dataset.from_dict(rows, features=Features({"prompt": turns, "image": Image()}))


def adapters(rank: int) -> Any:
    """LoRA on the layers that ours puts it on."""
    from peft import LoraConfig

    from kvg.backbones.lora import LoRASettings

    names = "|".join(LoRASettings().targets)
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=rf".*language_model.*\.({names})")


def letters(completions: Any, **_: Any) -> list[float]:
    """A number from the text alone, different for almost all texts."""
    return [zlib.crc32(turns[0]["content"].encode()) % 1000 / 1000 for turns in completions]


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Trains for some steps in this process; returns times, phases and memory."""
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks
    if args.trl:
        sys.path.insert(0, str(args.trl.resolve()))
    import torch

    torch.set_num_threads(args.threads)
    import transformers
    import trl
    from grpo_step import checksum, with_lengths
    from phases import PhaseClock
    from transformers import TrainerCallback

    from kvg.work.cpu import keep_freed_memory

    keep_freed_memory()
    transformers.logging.set_verbosity_error()
    gpu = args.device == "cuda"
    clock = PhaseClock(torch.cuda.synchronize) if gpu else PhaseClock()
    lengths: list[list[int]] = []
    prompts: list[int] = []

    class Steps(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.wrap(trainer.optimizer, "step", "optimizer")
            clock.restart()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step()

    processor, total = processor_of(args.checkpoint), args.warmup + args.steps
    with tempfile.TemporaryDirectory() as folder:
        config = trl.GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=args.prompts * args.group,
            num_generations=args.group,
            max_completion_length=args.completion,
            generation_kwargs={
                "min_new_tokens": 0 if args.free else args.completion,
                "suppress_tokens": [processor.image_token_id],  # its forward pass fails on one
            },
            beta=args.beta,
            learning_rate=1e-6,
            temperature=args.temperature,
            shuffle_dataset=False,
            max_steps=total,
            gradient_checkpointing=False,  # its default; off is faster here
            bf16=False,  # of autocast; the weights' type is below
            use_cpu=not gpu,
            model_init_kwargs={"dtype": args.dtype},
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = trl.GRPOTrainer(
            model=str(args.checkpoint),
            reward_funcs=[letters],
            args=config,
            train_dataset=dataset_of(total * args.prompts, args.image_size),
            processing_class=processor,
            peft_config=adapters(args.lora) if args.lora else None,
            callbacks=[Steps()],
        )

        def scoring() -> str:
            return "forward" if torch.is_grad_enabled() else "reference"

        generate = trainer._generate_single_turn

        def generate_and_note(prompt_ids: Any, *more: Any, **options: Any) -> Any:
            out = generate(prompt_ids, *more, **options)
            prompts.append(checksum(list(prompt_ids[0])))
            lengths.append([len(completion) for completion in out[0]])
            return out

        trainer._generate_single_turn = generate_and_note
        clock.wrap(trainer, "_generate_single_turn", "sample")
        clock.wrap(trainer, "_calculate_rewards", "reward")
        clock.wrap(trainer, "_get_per_token_logps_and_entropies", scoring)
        clock.wrap(trainer.accelerator, "backward", "backward")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        trainer.train()
    if not args.free and {length for step in lengths for length in step} != {args.completion}:
        raise RuntimeError(f"completions of {lengths} tokens instead of {args.completion}")
    found = with_lengths(clock.report(args.warmup), lengths, args.warmup)
    versions = {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    if gpu:
        found |= {"gpu": torch.cuda.get_device_name(), "peak_gpu_mib": torch.cuda.max_memory_allocated() // 2**20}
    return {**found, "prompts": prompts, "before_mib": before, "versions": versions}


def main() -> int:
    """Runs and prints JSON."""
    from grpo_step import arguments, tell

    parser = arguments()
    parser.description = __doc__.splitlines()[0]
    parser.add_argument("--trl", type=Path, help="folder with another release")
    args = parser.parse_args()
    tell(run(args), args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
