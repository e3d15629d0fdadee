from __future__ import annotations

import pickle

import pytest

from kvg.errors import DataError
from kvg.formats.grpo_parquet import GRPOParquet, write_grpo_parquet
from kvg.formats.kvg_bench import KVGBench, write_kvg_bench
from kvg.formats.stores import open_store
from kvg.shards.reader import Tally

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def read_all(store, tally=None):
    return [sample for part in store.parts() for _, sample in part.read(tally)]


def write(path, rows, row_group_size=None):
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group_size)
    return path


@pytest.fixture
def image(make_sample):
    return {"bytes": make_sample(0).image}


def bench_row(image, number, **changes):
    row = {
        "question_id": f"dog/{number}",
        "category": "dog",
        "question": "Find and give the bounding box of <|object_ref_start|>Basenji<|object_ref_end|>",
        "answer": "<|object_ref_start|>Basenji<|object_ref_end|><|box_start|>(100,200),(500,800)<|box_end|>",
        "image": image,
    }
    return {**row, **changes}


def test_benchmark_row_by_hand(tmp_path, image):
    store = open_store(write(tmp_path / "kvg-bench.parquet", [bench_row(image, 7)]))
    assert isinstance(store, KVGBench)
    (sample,) = read_all(store)
    assert (sample.key, sample.entity, sample.category, sample.split) == ("dog-7", "Basenji", "dog", "unseen")
    assert sample.box_px == (20.0, 20.0, 100.0, 80.0)
    assert (sample.question_id, sample.provenance) == ("dog/7", {})


def test_v2_row_by_hand(tmp_path, image):
    row = {
        "image": image,
        "problem": "Find and give the bounding box of <|object_ref_start|>Merlin<|object_ref_end|>  Output the",
        "solution": "<answer><|object_ref_start|>Merlin<|object_ref_end|>(0,0),(500,1000)</answer>",
    }
    (sample,) = read_all(open_store(write(tmp_path / "grpo-bird.parquet", [row])))
    assert (sample.entity, sample.category, sample.box_px) == ("Merlin", "bird", (0.0, 0.0, 100.0, 100.0))


def test_verl_row_by_hand(tmp_path, image):
    row = {
        "prompt": [{"role": "user", "content": "<image>Find and give the bounding box of Merlin  Output the thinking"}],
        "images": [image],
        "data_source": "kvg",
        "reward_model": {"ground_truth": "<|object_ref_start|>Merlin<|object_ref_end|>(0,0),(500,1000)"},
        "extra_info": {"index": 0},
    }
    store = open_store(write(tmp_path / "verl-grpo-food.parquet", [row]))
    assert isinstance(store, GRPOParquet)
    assert store.is_verl
    (sample,) = read_all(store)
    assert (sample.entity, sample.category, sample.box_px) == ("Merlin", "food", (0.0, 0.0, 100.0, 100.0))


@pytest.mark.parametrize("verl", [False, True])
def test_grpo_round_trip(tmp_path, make_sample, verl):
    samples = [make_sample(i) for i in range(4)]
    write_grpo_parquet(samples, tmp_path / "grpo-bird.parquet", verl=verl)
    after = read_all(open_store(tmp_path / "grpo-bird.parquet"))
    assert [(s.entity, s.image) for s in after] == [(s.entity, s.image) for s in samples]
    assert [s.box_px for s in after] == [pytest.approx(s.box_px) for s in samples]


def test_bench_round_trip(tmp_path, make_sample):
    samples = [make_sample(i) for i in range(3)]
    assert write_kvg_bench(samples, tmp_path / "kvg-bench.parquet") == 3
    after = read_all(open_store(tmp_path / "kvg-bench.parquet"))
    assert [(s.entity, s.category) for s in after] == [(s.entity, s.category) for s in samples]
    assert [s.box_px for s in after] == [pytest.approx(s.box_px) for s in samples]


def test_row_groups_are_parts_and_travel_to_workers(tmp_path, image):
    path = write(tmp_path / "kvg-bench.parquet", [bench_row(image, i) for i in range(5)], row_group_size=2)
    parts = pickle.loads(pickle.dumps(open_store(path))).parts()
    assert [part.num_samples for part in parts] == [2, 2, 1]
    assert [[(i, s.key) for i, s in part.read()] for part in parts] == [
        [(0, "dog-0"), (1, "dog-1")],
        [(0, "dog-2"), (1, "dog-3")],
        [(0, "dog-4")],
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "somewhere"}, "row 3: answer: 'somewhere' contains no box"),
        ({"question": None}, "row 3: question: is missing"),
        ({"category": ""}, "row 3: category"),
        ({"image": {"bytes": None}}, "row 3: image: contains no bytes"),
        ({"image": {"bytes": b"junk"}}, "row 3: image: is no picture"),
    ],
)
def test_a_bad_row_is_named_and_passed_over(tmp_path, image, change, message, caplog):
    rows = [bench_row(image, i) for i in range(5)]
    rows[3] |= change
    tally = Tally()
    samples = read_all(open_store(write(tmp_path / "kvg-bench.parquet", rows, row_group_size=2)), tally)
    assert [s.key for s in samples] == ["dog-0", "dog-1", "dog-2", "dog-4"]
    assert tally.num_bad == 1
    assert message in caplog.text


def test_missing_column(tmp_path, image):
    row = bench_row(image, 0)
    del row["answer"]
    with pytest.raises(DataError, match="answer: is missing from the columns"):
        open_store(write(tmp_path / "kvg-bench.parquet", [row]))
    with pytest.raises(DataError, match=r"columns: .* contain neither"):
        open_store(write(tmp_path / "grpo.parquet", [{"image": image, "problem": "x"}]))


def test_file_cut_in_half(tmp_path, image):
    path = write(tmp_path / "kvg-bench.parquet", [bench_row(image, 0)])
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="parquet: cannot be read"):
        open_store(path)


def test_missing_and_empty_files(tmp_path, image):
    with pytest.raises(DataError, match="does not exist"):
        open_store(tmp_path / "no.parquet")
    pq.write_table(pa.Table.from_pylist([bench_row(image, 0)]).slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(DataError, match="rows: are missing"):
        open_store(tmp_path / "empty.parquet")
