"""Every family comes through the whole method, and what goes wrong on the way is noticed."""

from pathlib import Path

import pytest
import torch
from families import tiny

from deeptalk.backbone import Backbone
from deeptalk.backbone.families import SELECTIONS, SUPPORTED
from deeptalk.backbone.stock import save_stock
from deeptalk.backbone.tiny import FAMILIES
from deeptalk.cli import conformance
from deeptalk.cli.conformance import TOLERANCE, ConformanceError, conform
from deeptalk.recipes import PIPELINE


def test_every_family_and_every_way_to_select_is_there() -> None:
    assert {settings["model_type"] for settings in FAMILIES.values()} == set(SUPPORTED)
    assert len(SUPPORTED) >= 9
    assert {SELECTIONS[type(tiny(name).hooks[0].rule)] for name in ("olmoe", "gpt_oss", "glm4_moe")} == set(
        SELECTIONS.values()
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_the_whole_method_on_one_family(name: str, tmp_path: Path) -> None:
    tiny(name)  # a family that this version of transformers can't serve is skipped
    result = conform(name, tmp_path)
    assert result.family == name
    assert result.stages == (*(recipe.name for recipe in PIPELINE), "preference")
    assert result.num_shards > 1
    assert max(result.open_difference, result.stock_difference) <= TOLERANCE == 1e-5


def test_a_checkpoint_that_is_not_the_model_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def save(backbone: Backbone, folder: Path, **options: str) -> None:
        tensors = dict(backbone.model.state_dict())
        name = next(name for name in tensors if name.endswith("down_proj") and ".experts." in name)
        save_stock(backbone, folder, tensors=tensors | {name: tensors[name].flip(0)})

    monkeypatch.setattr(conformance, "save_stock", save)
    with pytest.raises(ConformanceError, match="reads other tensors than were written"):
        conform("olmoe", tmp_path)


def test_a_token_that_does_not_keep_to_its_mask_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "deeptalk.backbone.router.mask_selection", lambda router, native, *rest, **named: native
    )
    with pytest.raises(ConformanceError, match="chose an expert that its mask forbids"):
        conform("olmoe", tmp_path)


def test_a_stage_that_moves_too_much_or_too_little_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(conformance, "freeze_all_but", lambda model, patterns: ())
    with pytest.raises(ConformanceError, match=r"stage align: .* moved without being named: \['adapter"):
        conform("olmoe", tmp_path / "much")

    def freeze(model: torch.nn.Module, patterns: tuple[str, ...]) -> tuple[str, ...]:
        model.requires_grad_(False)
        model.get_submodule("heads.codec").requires_grad_(True)
        return tuple(name for name, _ in model.named_parameters())

    monkeypatch.setattr(conformance, "freeze_all_but", freeze)
    with pytest.raises(ConformanceError, match=r"nothing moved of \['adapter\.\*', 'embedding\.\*'\]"):
        conform("olmoe", tmp_path / "little")
