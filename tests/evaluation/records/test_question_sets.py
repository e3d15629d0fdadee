"""Sets are gone through before anything is asked: what is wrong is named by row and field, and counted."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from PIL import Image

from kvg.errors import ConfigError, DataError
from kvg.evaluation.records.question_sets import ArtifactSettings, check_set, question_batches
from kvg.formats.kvg_bench import write_kvg_bench
from kvg.formats.parquet import write_rows
from kvg.shards.manifest import load_manifest
from kvg.shards.writer import ShardWriter

BOX = "<|box_start|>(100,200),(500,800)<|box_end|>"


def picture(colour: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (colour, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def bench(tmp_path):
    """Writes a benchmark of five rows with some of their columns changed, by row; returns its path."""

    def write(changes=(), without=""):
        rows = []
        for number in range(5):
            row = {
                "question_id": f"dog/{number}",
                "category": "dog",
                "question": "Find and give the bounding box of <|object_ref_start|>Basenji<|object_ref_end|>",
                "answer": f"<|object_ref_start|>Basenji<|object_ref_end|>{BOX}",
                "image": {"bytes": picture(number)},
                **dict(changes).get(number, {}),
            }
            rows.append({name: value for name, value in row.items() if name != without})
        write_rows(tmp_path / "bench.parquet", rows)
        return str(tmp_path / "bench.parquet")

    return write


def read(batches, numbers):
    found = batches.read(numbers)
    return [(number, going.set.name, [(row, s.key) for row, s in rows]) for number, going, rows in found]


def test_batches_hold_questions_of_one_set_in_stored_order(bench, lab_shards, tmp_path):
    sets = [check_set("bench", bench()), check_set("lab", lab_shards(tmp_path / "lab", 3, per_shard=2))]
    batches = question_batches(sets, 2)
    assert batches.sizes == [2, 2, 1, 2, 1]
    whole = read(batches, range(5))
    assert [(number, name, [row for row, _ in rows]) for number, name, rows in whole] == [
        (0, "bench", [0, 1]),
        (1, "bench", [2, 3]),
        (2, "bench", [4]),
        (3, "lab", [0, 1]),
        (4, "lab", [2]),
    ]
    assert read(batches, [1, 4]) == [whole[1], whole[4]]
    assert batches.settings()["batch_size"] == 2
    assert batches.settings()["sets"]["lab"][1] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question_id": "dog/1"}, r"row 3: question_id: 'dog/1' is already in row 1"),
        ({"question_id": None}, r"row 3: question_id: is missing"),
        ({"answer": "(100,200),(500,1001)"}, r"row 3: answer: .* in relative_1000 does not lie inside"),
        ({"answer": "(-1,200),(500,800)"}, r"row 3: answer: .* in relative_1000 does not lie inside"),
        ({"answer": "(500,200),(100,800)"}, r"row 3: answer: .* has no area"),
        ({"answer": "nowhere"}, r"row 3: answer: 'nowhere' contains no box"),
        ({"image": {"bytes": b"junk"}}, r"row 3: image: is no picture"),
        ({"image": {"bytes": picture()[:-30]}}, r"row 3: image: is cut off"),
        ({"image": {"bytes": None}}, r"row 3: image: contains no bytes"),
    ],
)
def test_bad_rows_end_it_before_anything_is_asked_or_are_left_out(bench, change, message):
    path = bench({3: change, 4: {"category": ""}})
    with pytest.raises(DataError, match=message) as caught:
        check_set("bench", path)
    assert "(1 of 2 unusable samples in this set; data.skip_bad: true skips them)" in str(caught.value)
    found = check_set("bench", path, skip_bad=True)
    assert [row for _, _, row in found.places] == [0, 1, 2]
    assert found.num_bad == 2
    assert [problem.rpartition(".parquet ")[2][:5] for problem in found.problems] == ["row 3", "row 4"]


@pytest.mark.parametrize("column", ["question_id", "category", "question", "answer", "image"])
def test_a_missing_column_is_named(bench, column):
    with pytest.raises(DataError, match=f"{column}: is missing from the columns"):
        check_set("bench", bench(without=column))


def test_two_names_that_look_alike_are_two_questions(bench):
    found = check_set("bench", bench({0: {"question_id": "dog/a b"}, 1: {"question_id": "dog/a.b"}}))
    (_, _, rows), *_ = question_batches([found], 5).read([0])
    assert len({sample.key for _, sample in rows}) == 5


def test_a_key_that_comes_twice_in_shards(tmp_path, scenes):
    for name in ("a", "b"):
        with ShardWriter(tmp_path / name, 2) as writer:
            for sample in scenes(2):
                writer.write(sample)
    (tmp_path / "b/shard-000000.tar").rename(tmp_path / "a/shard-000001.tar")
    manifest = load_manifest(tmp_path / "a")
    second = replace(manifest.shards[0], file="shard-000001.tar")
    replace(manifest, shards=(*manifest.shards, second)).save(tmp_path / "a")
    with pytest.raises(DataError, match=r"row 2: key: 's0-0000000' is already in row 0; .* \(1 of 2 unusable"):
        check_set("twice", str(tmp_path / "a"))


def test_a_shard_that_ends_too_early_is_told(lab_shards, tmp_path):
    path = lab_shards(tmp_path / "set", 4, per_shard=2)
    half = tmp_path / "set/shard-000001.tar"
    half.write_bytes(half.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"shard-000001.tar: size: has 1000 bytes, the manifest says"):
        check_set("set", path)
    found = check_set("set", path, skip_bad=True)
    assert (len(found.places), found.num_bad) == (2, 1)


def test_a_set_of_which_nothing_can_be_asked(bench):
    with pytest.raises(DataError, match="samples: none is usable"):
        check_set("bench", bench({n: {"answer": "?"} for n in range(5)}), skip_bad=True)


def test_names_to_choose_from_hold_the_right_one(tmp_path, scenes):
    samples = [replace(s, options=("Merlin", s.entity)) for s in scenes(2)]
    for name, made in (("good", samples), ("bad", [replace(samples[0], options=("Merlin", "Hobby"))])):
        with ShardWriter(tmp_path / name, 2) as writer:
            for sample in made:
                writer.write(sample)
    assert check_set("good", str(tmp_path / "good")).num_choices == 2
    with pytest.raises(DataError, match=r"row 0: options: .* must be at least two names"):
        check_set("bad", str(tmp_path / "bad"))


def test_a_set_that_changes_under_ones_feet(bench):
    batches = question_batches([check_set("bench", bench())], 5)
    bench({2: {"answer": "gone"}})
    with pytest.raises(DataError, match="row 2: set: has changed while it was read"):
        list(batches.read([0]))


def test_disturbed_pictures_come_after_all_others(lab_shards, tmp_path):
    sets = [check_set(name, lab_shards(tmp_path / name, 2, sizes=[(84, 84)], snap_px=None)) for name in ("a", "b")]
    batches = question_batches(sets, 2, ArtifactSettings(["noise", "seams"], [1, 5], seed=3))
    passes = [(one.kind, one.strength, one.set.name) for one in batches.passes]
    assert passes[:4] == [("", 0, "a"), ("", 0, "b"), ("noise", 1, "a"), ("noise", 1, "b")]
    assert passes[-1] == ("seams", 5, "b")
    assert len(passes) == 2 * (1 + 2 * 2)
    _, going, ((_, sample), _) = next(batches.read([2]))
    question = going.question(sample)
    assert (question.artifact, question.strength, question.set_name) == ("noise", 1, "a")
    assert question.sample.image != sample.image
    assert batches.settings()["artifacts"][0] == ["noise", 1, 3]


def test_disturbances_that_cannot_be_are_said_at_once(bench, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.artifacts\.kinds: \['rain'\] must be some of noise"):
        ArtifactSettings(["rain"])
    with pytest.raises(ConfigError, match=r"data\.artifacts\.strengths: \[6\]"):
        ArtifactSettings(["noise"], [6])
    with pytest.raises(ConfigError, match=r"data\.artifacts\.kinds: seams: .*objects"):
        question_batches([check_set("bench", bench())], 2, ArtifactSettings(["seams"]))


def test_the_published_format_written_here_is_whole(scenes, tmp_path):
    write_kvg_bench(scenes(3), tmp_path / "bench.parquet")
    assert len(check_set("bench", str(tmp_path / "bench.parquet")).places) == 3
