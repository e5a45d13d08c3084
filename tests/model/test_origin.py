"""Which text backbone a model was made of, told from its folder to those of the stages after it."""

import json
from pathlib import Path

from deeptalk.backbone.stock import stock_hash
from deeptalk.model.origin import origin_of


def folder_of(path: Path, config: dict, note: dict | None = None, *, weights: str = "") -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    if note is not None:
        (path / "provenance.json").write_text(json.dumps(note))
    if weights:
        (path / "model.safetensors").write_text(weights)
    return path


def test_a_backbone_is_its_own_origin_and_a_model_tells_its_own(tmp_path: Path) -> None:
    stock = folder_of(tmp_path / "stock", {"model_type": "olmoe"}, weights="x")
    other = folder_of(tmp_path / "other", {"model_type": "olmoe"}, weights="y")
    assert origin_of(stock) == stock_hash(stock) != origin_of(other)
    ours = {"model_type": "deeptalk"}
    told = folder_of(tmp_path / "told", ours, {"backbone_hash": "abc"}, weights="x")
    assert origin_of(told) == "abc"
    lossless = folder_of(tmp_path / "lossless", ours | {"backbone_hash": "def"}, {}, weights="x")
    assert origin_of(lossless) == "def"


def test_what_does_not_tell_has_none(tmp_path: Path) -> None:
    for name, config, weights in (
        ("ours", {"model_type": "deeptalk"}, "x"),
        ("encoder", {"model_type": "deeptalk_encoder"}, "x"),
        ("codec", {"sampling_rate": 24_000}, "x"),
        ("empty", {"model_type": "olmoe"}, ""),
    ):
        assert origin_of(folder_of(tmp_path / name, config, weights=weights)) is None
    (tmp_path / "bare").mkdir()
    assert origin_of(tmp_path / "bare") is None
