from __future__ import annotations

import itertools
import json
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from data_modules import CoTSFTDataModule, EvaluationDataModule, GRPODataModule
from data_modules.recipe import load_replay
from kvg.errors import ConfigError, DataError
from kvg.formats.sharegpt import write_sharegpt
from kvg.shards.reader import ShardFolder

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),  # the resumed run saves nothing
    pytest.mark.filterwarnings("ignore:This DataLoader will create .* worker processes"),  # on a single core
    pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero"),  # pytest undoes the module's own
]


class Watcher(L.LightningModule):
    """Notes what it is fed; its one weight makes it trainable."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.validated, self.tested, self.numbers = [], [], [], []

    def training_step(self, batch, batch_idx):
        assert batch.input_ids.device == self.device
        self.seen.append([s.key for s in batch.samples])
        return self.weight * batch.pictures.tensors["pixel_values"].mean()

    def validation_step(self, batch, batch_idx):
        self.validated += [s.key for s in batch.samples]

    def setup(self, stage):
        if stage == "test":
            self.trainer.datamodule.answer_loader = self.answer_loader

    def answer_loader(self, batches, mode, num_workers, skip_bad):
        self.asked = mode, num_workers, skip_bad
        read = [{"number": n, "samples": [sample for _, sample in rows]} for n, _, rows in batches.read([0, 1, 2])]
        return DataLoader(read, batch_size=None)

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.numbers.append(batch["number"])
        self.tested += [s.key for s in batch["samples"]]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Scheduled(Watcher):
    """Asks for the number of steps, as a schedule does; Lightning then makes the loader before it restores."""

    def configure_optimizers(self):
        assert self.trainer.estimated_stepping_batches > 0
        return super().configure_optimizers()


def trainer(folder, **settings):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return L.Trainer(default_root_dir=folder, **{**quiet, "enable_checkpointing": False, **settings})


def connected(data, backbone):
    data.connect(backbone)
    return data


@pytest.mark.parametrize(("kind", "num_workers"), [(Watcher, 0), (Watcher, 2), (Scheduled, 0)])
def test_a_run_stopped_in_mid_epoch_continues_with_the_next_sample(write_set, backbone, tmp_path, kind, num_workers):
    folder = write_set(24, per_shard=3)

    def data():
        settings = {"batch_size": 4, "num_workers": num_workers, "shuffle_buffer": 5}
        return connected(CoTSFTDataModule(folder, **settings), backbone)

    whole = kind()
    trainer(tmp_path, max_epochs=3).fit(whole, data())
    assert len(whole.seen) == 18
    first = kind()
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    trainer(tmp_path, max_steps=10, max_epochs=3, callbacks=[saver], enable_checkpointing=True).fit(first, data())
    assert first.seen == whole.seen[:10]
    for step in (2, 6, 8, 10):  # in the first epoch, at its end, in the second
        resumed = kind()
        path = tmp_path / f"step={step}.ckpt"
        trainer(tmp_path, max_epochs=3).fit(resumed, data(), ckpt_path=path, weights_only=False)
        assert resumed.seen == whole.seen[step:]


def test_resume_while_accumulating_gradients(write_set, backbone, tmp_path):
    folder = write_set(24)

    def data():
        return connected(CoTSFTDataModule(folder, batch_size=2), backbone)

    whole, resumed = Watcher(), Watcher()
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=-1, filename="{step}")
    settings = {"max_epochs": 1, "accumulate_grad_batches": 2}
    trainer(tmp_path, callbacks=[saver], enable_checkpointing=True, **settings).fit(whole, data())
    path = tmp_path / "step=4.ckpt"
    trainer(tmp_path, **settings).fit(resumed, data(), ckpt_path=path, weights_only=False)
    assert resumed.seen == whole.seen[8:]
    assert len(whole.seen) == 12


def test_validation_sees_every_sample_once(write_set, backbone, tmp_path):
    module = Watcher()
    data = connected(CoTSFTDataModule(write_set(8), write_set(7, name="val"), batch_size=4), backbone)
    trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0).fit(module, data)
    assert module.validated == [f"k{i:04d}" for i in range(7)]


def test_stage_1_batches(write_set, backbone):
    data = connected(CoTSFTDataModule(write_set(8), write_set(4, name="val"), batch_size=4), backbone)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    text = "".join(map(chr, batch.input_ids[0][batch.attention_mask[0] > 0]))
    assert text == f"think: {batch.samples[0].entity}?{batch.samples[0].rationale}"
    assert "".join(map(chr, batch.labels[0][batch.labels[0] >= 0])) == batch.samples[0].rationale
    (val,) = data.val_dataloader()
    prompts = next(iter(val))
    assert (prompts.labels == -100).all()
    assert prompts.attention_mask[:, -1].all()


def test_direct_sft_needs_no_rationales(write_set, backbone):
    folder = write_set(8, rationale="")
    data = connected(CoTSFTDataModule(folder, target="answer", mode="direct", batch_size=2), backbone)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    learnt = "".join(map(chr, batch.labels[0][batch.labels[0] >= 0]))
    assert learnt == str(batch.samples[0].box_px)


def test_missing_rationales_are_said_before_training(write_set, backbone):
    data = connected(CoTSFTDataModule(write_set(8, rationale="")), backbone)
    with pytest.raises(DataError, match="rationale: is missing; run `kvg-data rationalize`"):
        data.setup("fit")


def test_stage_2_batches_are_prompts(write_set, backbone):
    data = connected(GRPODataModule(write_set(8), batch_size=4), backbone)
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert len(batches) == 2
    assert all((b.labels == -100).all() and b.attention_mask[:, -1].all() for b in batches)
    assert sorted(s.key for b in batches for s in b.samples) == [f"k{i:04d}" for i in range(8)]


def test_evaluation_of_two_sets(write_set, backbone, tmp_path):
    sets = {"seen": write_set(5), "unseen": write_set(3, name="other", split="unseen")}
    data = connected(EvaluationDataModule(sets, batch_size=4), backbone)
    module = Watcher()
    trainer(tmp_path).test(module, data, verbose=False)
    assert data.names == ["seen", "unseen"]
    assert module.tested == [f"k{i:04d}" for i in (*range(5), *range(3))]
    assert module.numbers == [0, 1, 2]  # no batch holds questions of two sets
    assert module.asked == ("direct", 0, False)


def test_published_files_train_too(write_set, backbone, tmp_path):
    parts = ShardFolder(write_set(6)).parts()
    write_sharegpt((s for p in parts for _, s in p.read()), tmp_path / "cot-sft-bird.json")
    data = connected(CoTSFTDataModule(str(tmp_path / "cot-sft-bird.json"), batch_size=2), backbone)
    module = Watcher()
    trainer(tmp_path, max_epochs=1).fit(module, data)
    assert len(set(itertools.chain(*module.seen))) == 6


def replay_file(tmp_path, *rows):
    path = tmp_path / "cards.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", "utf-8")
    return str(path)


def test_replayed_text_is_a_fixed_share(write_set, backbone, tmp_path):
    replay = replay_file(tmp_path, {"text": "AAAA"}, {"prompt": "what", "completion": "BBBB"})
    settings = {"batch_size": 4, "replay": replay, "replay_ratio": 0.375, "seed": 1}
    data = connected(CoTSFTDataModule(write_set(20), **settings), backbone)
    data.setup("fit")
    loader = data.train_dataloader()
    batches = list(loader)
    assert len(loader) == len(batches) == 8  # 20 / (4 * 0.625)
    assert [len(b.samples) for b in batches] == [3, 2, 3, 2, 3, 2, 3, 2]
    assert all(len(b.input_ids) == 4 and len(b.pictures.tensors["pixel_values"]) == len(b.samples) for b in batches)
    texts = {"".join(map(chr, row[row >= 0])) for b in batches for row in b.labels[len(b.samples) :]}
    assert texts == {"AAAA", "BBBB"}
    assert len({s.key for b in batches for s in b.samples}) == 20
    again = connected(CoTSFTDataModule(data.train, **settings), backbone)
    again.setup("fit")
    second = again.train_dataloader()
    state = None
    for batch in itertools.islice(second, 3):
        state = (batch, second.state_dict())
    third = again.train_dataloader()
    third.load_state_dict(state[1])
    for ours, theirs in zip(third, batches[3:], strict=True):
        assert torch.equal(ours.input_ids, theirs.input_ids)


@pytest.mark.parametrize(
    ("rows", "message"),
    [([{"completion": "x"}], "line 1: replay"), ([{"text": "x"}, ["no"]], "line 2: replay"), ([], "contains no line")],
)
def test_bad_replay_files(write_set, tmp_path, rows, message):
    data = CoTSFTDataModule(write_set(4), replay=replay_file(tmp_path, *rows), replay_ratio=0.5)
    with pytest.raises(DataError, match=message):
        data.setup("fit")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "use <|image_pad|> here"}, r"line 2: text: may not hold <\|image_pad\|>"),
        ({"prompt": "end <|im_end|>", "completion": "x"}, r"line 2: prompt: may not hold <\|im_end\|>"),
        ({"prompt": "a", "completion": "<|vision_start|>"}, "line 2: completion: may not hold"),
        ({"text": "<|begin_of_text|>"}, "line 2: text: may not hold"),  # of other families
        ({"text": None}, "line 2: text: is missing"),
        ({"text": 5}, "line 2: text: 5 must be text"),
        ({"text": " "}, "line 2: text: ' ' must be text that is not empty"),
        ({"text": "\ud800"}, "line 2: text: .* half a surrogate pair"),
        ({"prompt": "a", "completion": 5}, "line 2: completion: 5 must be text"),
        ({"prompt": "a", "completion": ["b"]}, "line 2: completion: "),
        ({"prompt": "a"}, "line 2: replay: has 'prompt'; write"),
        ({"text": "a", "prompt": "b", "completion": "c"}, "line 2: replay: has 'text', 'prompt'"),
        ({}, "line 2: replay: has no field"),
        (None, "line 2: replay: None must be an object"),
        ("a", "line 2: replay: 'a' must be an object"),
    ],
)
def test_replayed_texts_are_checked_at_start(write_set, tmp_path, row, message):
    data = CoTSFTDataModule(write_set(4), replay=replay_file(tmp_path, {"text": "x"}, row), replay_ratio=0.5)
    with pytest.raises(DataError, match=message):
        data.setup("fit")


@pytest.mark.parametrize("connect_first", [True, False])
def test_replay_that_is_too_long_is_told_before_training(write_set, backbone, tmp_path, connect_first):
    replay = replay_file(tmp_path, {"text": "ab"}, {"prompt": "what", "completion": "B" * 500})
    data = CoTSFTDataModule(write_set(4), replay=replay, replay_ratio=0.5, max_tokens=300)
    start = data.setup
    if connect_first:
        connected(data, backbone)
    else:
        data.setup("fit")
        connected(data, backbone)
        start = lambda _: data.train_dataloader()  # noqa: E731
    with pytest.raises(DataError, match=r"line 2: tokens: \d+ exceed max_tokens=300"):
        start("fit")


def test_replay_with_odd_line_ends_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "replay.jsonl"
    texts = ["a\u2028b", " c\u0085\x0b ", "HTML has a <video> and a <think>"]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    path.write_bytes("\r\n".join(["\ufeff" + lines[0], "", *lines[1:]]).encode())
    assert [text.completion for text in load_replay(path)] == texts
    assert [text.where[-6:] for text in load_replay(path)] == ["line 1", "line 3", "line 4"]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"batch_size": 0}, "data.batch_size"),
        ({"target": "both"}, "data.target"),
        ({"replay_ratio": 0.5}, "data.replay_ratio"),
        ({"replay": "x.jsonl"}, "data.replay_ratio"),
        ({"replay": "x.jsonl", "replay_ratio": 1.0}, "data.replay_ratio"),
        ({"replay": "x.jsonl", "replay_ratio": 0.5, "batch_size": 1}, "data.batch_size"),
    ],
)
def test_settings_that_cannot_work(settings, field):
    with pytest.raises(ConfigError) as caught:
        CoTSFTDataModule("set", **settings)
    assert caught.value.field == field


def test_wrong_paths_fail_in_setup(tmp_path):
    for data in (CoTSFTDataModule(str(tmp_path / "no")), GRPODataModule(str(tmp_path / "no"))):
        with pytest.raises(DataError, match="does not exist"):
            data.setup("fit")
    with pytest.raises(DataError, match="does not exist"):
        EvaluationDataModule(str(tmp_path / "no")).setup("test")
    with pytest.raises(ConfigError, match=r"data\.test"):
        EvaluationDataModule({})


def test_not_connected(write_set):
    data = CoTSFTDataModule(write_set(4))
    data.setup("fit")
    with pytest.raises(ConfigError, match="connect"):
        data.train_dataloader()


def test_a_damaged_set_still_trains(write_set, backbone, tmp_path, caplog):
    folder = write_set(20)
    spoiled = Path(folder) / "shard-000001.tar"
    whole = spoiled.read_bytes()
    spoiled.write_bytes(whole[:6000] + bytes(len(whole) - 6000))  # as long as the manifest says
    module = Watcher()
    trainer(tmp_path, max_epochs=1).fit(module, connected(CoTSFTDataModule(folder, batch_size=4), backbone))
    assert len(module.seen) == 5
    assert "shard-000001.tar" in caplog.text
