"""Our files in the hands of the tools that they are for. Each test needs its tool; pycocotools and others are optional.

pip install pycocotools supervision label-studio-sdk fiftyone
"""

from __future__ import annotations

import contextlib
import io
import json

import pytest

from .conftest import HEIGHT, WIDTH

BOXES = [(0.0, 0.0, 203.0, 96.0), (17.0, 13.0, 101.0, 59.0), (101.25, 20.5, 180.125, 90.0)]
NAMES = ["Osprey", "Mérlin ♂", "no"]


def xywh(box):
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]


@pytest.fixture
def predicted(tmp_path, shards, samples):
    """The shards with predictions: true for the first two pictures, a box of IoU 0 for the others."""
    from kvg.evaluation.records.question import Question
    from kvg.text.box_codec import ImageSize, RelativeCodec

    codec, size, lines = RelativeCodec(), ImageSize(WIDTH, HEIGHT, WIDTH, HEIGHT), []
    for number, sample in enumerate(samples):
        answer = codec.encode(sample.box_px if number < 2 else (200, 94, 203, 97), size)
        if number == 3:
            answer = "(1,980),(9,999)"
        lines.append(json.dumps(Question(sample).line(answer, "direct", codec, size)) + "\n")
    (tmp_path / "predictions.jsonl").write_text("".join(lines), "utf-8")
    return tmp_path / "predictions.jsonl"


def test_pycocotools_reads_annotations_and_results(predicted, shards, tmp_path, convert, samples):
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    more = ("--from", "predictions", "--pictures", shards, "--target-only")
    assert convert(predicted, tmp_path / "c", "coco", *more) == 0
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO(str(tmp_path / "c" / "annotations.json"))
        results = truth.loadRes(str(tmp_path / "c" / "predictions.json"))
        found = cocoeval.COCOeval(truth, results, "bbox")
        found.params.useCats = 0
        found.params.areaRng, found.params.areaRngLbl = found.params.areaRng[:1], ["all"]
        found.evaluate()
    assert [truth.loadCats(a["category_id"])[0]["name"] for a in truth.dataset["annotations"]] == [
        s.entity for s in samples
    ]
    assert [a["bbox"] for a in truth.dataset["annotations"]] == [xywh(s.box_px) for s in samples]
    ious = [float(found.ious[image, -1][0][0]) for image in truth.getImgIds()]
    assert ious[0] > 0.98
    assert ious[1] > 0.98
    assert ious[2] == 0.0
    # The last answer is (0.2, 95.1)-(1.8, 96.9): 1.624 x 0.94 = 1.53 pixels of 19,489.
    assert ious[3] == pytest.approx(1.5266 / 19489.5, rel=1e-3)


def test_supervision_reads_coco_and_yolo(shards, tmp_path, convert):
    supervision = pytest.importorskip("supervision")
    assert convert(shards, tmp_path / "c", "coco") == 0
    assert convert(shards, tmp_path / "y", "yolo") == 0
    sets = (
        supervision.DetectionDataset.from_coco(str(tmp_path / "c/images"), str(tmp_path / "c/annotations.json")),
        supervision.DetectionDataset.from_yolo(
            str(tmp_path / "y/images"), str(tmp_path / "y/labels"), str(tmp_path / "y/data.yaml")
        ),
    )
    for dataset in sets:
        assert len(dataset) == 4
        for _, image, found in dataset:
            assert image.shape[:2] == (HEIGHT, WIDTH)
            assert [dataset.classes[number] for number in found.class_id] == NAMES
            assert found.xyxy.tolist() == [pytest.approx(box, abs=1e-4) for box in BOXES]


def test_supervision_reads_the_answers_of_paligemma(shards, tmp_path, convert):
    supervision = pytest.importorskip("supervision")
    assert convert(shards, tmp_path / "j", "jsonl-paligemma") == 0
    line = json.loads((tmp_path / "j/annotations.jsonl").read_text("utf-8").splitlines()[0])
    found = supervision.Detections.from_vlm(
        supervision.VLM.PALIGEMMA, line["suffix"].replace("♂", "m"), resolution_wh=(WIDTH, HEIGHT)
    )
    for box, other in zip(BOXES, found.xyxy.tolist(), strict=True):
        steps = (WIDTH / 1024, HEIGHT / 1024) * 2
        assert all(abs(a - b) <= step for a, b, step in zip(box, other, steps, strict=True))


def test_detections_there_and_back(samples):
    supervision = pytest.importorskip("supervision")
    from kvg.formats.exchange.detections import from_detections, to_detections
    from kvg.formats.exchange.picture import LabelledBox

    boxes = [LabelledBox(name, box, score=0.5) for name, box in zip(NAMES, BOXES, strict=True)]
    made = to_detections(boxes)
    assert made.xyxy.tolist() == [list(box) for box in BOXES]  # float32 holds eighths of pixels exactly
    assert made.class_id.tolist() == [0, 1, 2]
    assert from_detections(made) == boxes
    assert made[made.class_id == 1].data["class_name"].tolist() == ["Mérlin ♂"]
    plain = supervision.Detections(xyxy=made.xyxy, class_id=made.class_id)
    assert [box.label for box in from_detections(plain, classes=NAMES)] == NAMES
    assert to_detections([]).is_empty()
    with pytest.raises(Exception, match="class_name: is missing"):
        from_detections(plain)
    with pytest.raises(Exception, match="is none of the 1 classes"):
        to_detections(boxes, classes=["Osprey"])


def test_florence_reads_its_own_answers(shards, tmp_path, convert):
    """The reader of boxes in transformers' processor of Florence-2, on our answers."""
    processing = pytest.importorskip("transformers.models.florence2.processing_florence2")
    import re

    import torch

    assert convert(shards, tmp_path / "j", "jsonl-florence2") == 0
    line = json.loads((tmp_path / "j/annotations.jsonl").read_text("utf-8").splitlines()[0])
    bins = torch.tensor([int(value) for value in re.findall(r"<loc_(\d+)>", line["suffix"])]).reshape(-1, 4)
    reader = object.__new__(processing.Florence2PostProcessor)
    reader.quantize_bins = (1000, 1000)
    expected = reader.quantize(torch.tensor(BOXES), (WIDTH, HEIGHT))
    assert bins.tolist() == expected.tolist()
    centres = reader.dequantize(bins, (WIDTH, HEIGHT))  # it cuts them to whole pixels, so the error is below 1 + 0.1
    assert (centres - torch.tensor(BOXES)).abs().max() <= 1 + WIDTH / 1000 / 2


def test_label_studio_accepts_tasks_and_labels(predicted, shards, tmp_path, convert):
    interface = pytest.importorskip("label_studio_sdk.label_interface")
    assert convert(predicted, tmp_path / "l", "label-studio", "--from", "predictions", "--pictures", shards) == 0
    labels = interface.LabelInterface((tmp_path / "l/label_config.xml").read_text("utf-8"))
    tasks = json.loads((tmp_path / "l/tasks.json").read_text("utf-8"))
    assert len(tasks) == 4
    assert list(labels.get_control("label").labels) == NAMES
    for task in tasks:
        assert all(labels.validate_annotation(annotation) for annotation in task["annotations"])
        assert all(labels.validate_prediction(prediction) for prediction in task["predictions"])
        assert labels.validate_prediction(task["predictions"][0], return_errors=True) == []


def test_label_studio_s_own_converter_finds_the_same_boxes(shards, tmp_path, convert):
    """The tasks through the SDK's converter to COCO: percent to pixels by somebody else."""
    converter = pytest.importorskip("label_studio_sdk.converter")
    assert convert(shards, tmp_path / "l", "label-studio") == 0
    tasks = json.loads((tmp_path / "l/tasks.json").read_text("utf-8"))
    for number, task in enumerate(tasks, 1):
        task["id"] = number
        task["data"]["image"] = str(tmp_path / "l" / task["data"]["image"].partition("?d=")[2])
        for annotation in task["annotations"]:
            annotation |= {"id": number, "completed_by": 1, "was_cancelled": False}
    (tmp_path / "export.json").write_text(json.dumps(tasks), "utf-8")
    made = converter.Converter(
        (tmp_path / "l/label_config.xml").read_text("utf-8"), str(tmp_path), download_resources=False
    )
    made.convert_to_coco(str(tmp_path / "export.json"), str(tmp_path / "coco"), is_dir=False)
    result = json.loads((tmp_path / "coco/result.json").read_text("utf-8"))
    assert len(result["images"]) == 4
    boxes = [a["bbox"] for a in result["annotations"]]
    assert boxes == [pytest.approx(xywh(box), abs=1e-6) for box in BOXES] * 4


def test_fiftyone_imports_the_set(predicted, shards, tmp_path, convert):
    importers = pytest.importorskip("fiftyone.utils.data.importers")
    assert convert(predicted, tmp_path / "f", "fiftyone", "--from", "predictions", "--pictures", shards) == 0
    for labels in (None, "predictions.json"):
        reader = importers.FiftyOneImageDetectionDatasetImporter(str(tmp_path / "f"), labels_path=labels)
        with reader:
            assert len(reader) == 4
            for path, metadata, found in reader:
                assert path.startswith(str(tmp_path / "f" / "data"))
                assert metadata is None or metadata.width == WIDTH
                if labels is None:
                    assert [d.label for d in found.detections] == NAMES
                    pixels = [
                        [v * s for v, s in zip(d.bounding_box, (WIDTH, HEIGHT) * 2, strict=True)]
                        for d in found.detections
                    ]
                    assert pixels == [pytest.approx(xywh(box)) for box in BOXES]
                    assert found.detections[0].traits == ["white", "black spots"]
                else:
                    assert len(found.detections) == 1
