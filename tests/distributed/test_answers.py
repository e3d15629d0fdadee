"""Two processes, with copies of the model or a share each of one, answer as one does: the same file, line for line."""

from __future__ import annotations

import json

import pytest

from kvg.cli.kvg import main

SETTINGS = {
    "data": "data_modules.EvaluationDataModule",
    "data.init_args.batch_size": 2,
    "model.init_args.max_new_tokens": 6,
}


def one_process(folder, sets, mode, **more):
    given = {**SETTINGS, "data.init_args.test": sets, "data.init_args.mode": mode, **more}
    given |= {"trainer.default_root_dir": folder, "trainer.accelerator": "cpu"}
    args = ["predict", "-c", "configs/stage/cot_sft.yaml", "-c", "configs/backbone/tiny.yaml"]
    assert main([*args, *(f"--{key}={value}" for key, value in given.items())]) == 0


@pytest.fixture(scope="module")
def sets(tmp_path_factory, lab_shards):
    """Batches of 2, 2, 1, 2 and 1 questions: an odd number, so that a process has one for nothing."""
    folder = tmp_path_factory.mktemp("sets")
    small = {"sizes": [(84, 84)], "snap_px": None}
    names = {"a": 5, "b": 3}
    return json.dumps({name: lab_shards(folder / name, num, per_shard=3, **small) for name, num in names.items()})


@pytest.fixture(scope="module")
def alone(tmp_path_factory, sets):
    """What one process says, in either number of turns."""
    found = {}

    def run(mode):
        if mode not in found:
            found[mode] = tmp_path_factory.mktemp(mode)
            given = {**SETTINGS, "data.init_args.test": sets, "data.init_args.mode": mode}
            given["trainer.default_root_dir"] = found[mode]
            args = ["predict", "-c", "configs/stage/cot_sft.yaml", "-c", "configs/backbone/tiny.yaml"]
            assert (
                main([*args, "--trainer.accelerator=cpu", *(f"--{key}={value}" for key, value in given.items())]) == 0
            )
        return found[mode]

    return run


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
@pytest.mark.parametrize(("command", "mode"), [("test", "direct"), ("predict", "describe")])
def test_two_processes_write_what_one_writes(strategy, command, mode, alone, sets, two_processes, curves, tmp_path):
    settings = {**SETTINGS, "data.init_args.test": sets, "data.init_args.mode": mode}
    two_processes(command, "cot_sft", strategy, tmp_path, **settings)
    lines = (tmp_path / "predictions.jsonl").read_bytes()
    assert lines == (alone(mode) / "predictions.jsonl").read_bytes()
    assert len(lines.splitlines()) == 8
    if command == "test":
        logged = curves(tmp_path)
        assert (logged["test/a/n"], logged["test/b/n"], logged["test/b/unparsed"]) == ([5.0], [3.0], [1.0])
    stamp = (tmp_path / "predictions.jsonl").stat().st_mtime_ns
    two_processes(command, "cot_sft", strategy, tmp_path, **settings)
    assert (tmp_path / "predictions.jsonl").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_go_on_where_one_stopped(strategy, alone, sets, two_processes, tmp_path):
    """Two batches are there from before, so that three are left for two processes."""
    one_process(tmp_path, sets, "direct", **{"trainer.limit_predict_batches": 2})
    assert not (tmp_path / "predictions.jsonl").exists()
    piece = tmp_path / "predictions.units/000001.json"
    known = json.loads(piece.read_text())
    known["result"][0]["line"]["answer"] = "as it was"
    piece.write_text(json.dumps(known))
    settings = {**SETTINGS, "data.init_args.test": sets, "data.init_args.mode": "direct"}
    two_processes("predict", "cot_sft", strategy, tmp_path, **settings)
    found, whole = ((folder / "predictions.jsonl").read_bytes().splitlines() for folder in (tmp_path, alone("direct")))
    assert json.loads(found[2])["answer"] == "as it was"
    assert found[:2] + found[3:] == whole[:2] + whole[3:]
