"""Text that is held against its backbone while a stage trains."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_stages import dialogue, pretrain, tiny
from typer.testing import CliRunner

from deeptalk.backbone import open_backbone
from deeptalk.cli.app import app
from deeptalk.errors import ConfigError
from deeptalk.training import retention
from deeptalk.training.checkpoint import checkpoints
from deeptalk.training.metrics import read_metrics
from deeptalk.training.recipe import Recipe
from deeptalk.training.retention import TextBound, TextLostError, open_gate
from deeptalk.training.run import open_stage, run_stage
from deeptalk.training.stage import Places

Complete = Callable[[Recipe], Path]


@pytest.fixture
def backbone(complete: Complete, root: Path) -> Path:
    """The text backbone of a stage 1 that has ended."""
    pretrain(complete, root)
    complete(dialogue("pocket-align"))
    return root / "pocket-text" / "model"


def joined(*, lr: float) -> Recipe:
    """Stage 3 at once behind stage 1, which saves each of its two steps and measures after the second."""
    recipe = dialogue("pocket-joint")
    optim = dataclasses.replace(recipe.optim, lr=lr)
    return dataclasses.replace(recipe, starts_from=("pocket-align",), optim=optim, eval_every=2, save_every=1)


def other_text(*, seed: int) -> Recipe:
    """Another text backbone."""
    return dataclasses.replace(tiny("pocket-text"), starts_from=(), name=f"other-{seed}", seed=seed)


def test_a_stage_tells_what_text_loses_and_ends_where_it_is_too_much(backbone: Path, root: Path, data: Path):
    align = dataclasses.replace(dialogue("pocket-align"), name="again")
    list(run_stage(align, root=root, data=data, text_bound=TextBound(backbone=backbone, most=0.0)))
    told = read_metrics(root / "again" / "run" / "metrics.jsonl")[-1]["evaluation"]
    assert told["text_nats"] == pytest.approx(told["text_nats_backbone"], abs=1e-6)  # nothing of it trains
    assert abs(told["text_kl"]) < 1e-6

    joint = joined(lr=3.0)  # which spoils whatever it was
    steps = run_stage(joint, root=root, data=data, text_bound=TextBound(backbone=backbone, most=0.01))
    assert next(steps).step == 1
    with pytest.raises(TextLostError, match=r"nats per token .* more than the 0\.01"):
        next(steps)
    assert not (root / joint.name / "model").exists()
    assert len(checkpoints(root / joint.name / "run")) == 1  # that of the first step
    bound = TextBound(backbone=backbone, most=1e6)
    assert [report.step for report in run_stage(joint, root=root, data=data, text_bound=bound)] == [2]
    told = read_metrics(root / joint.name / "run" / "metrics.jsonl")[-1]["evaluation"]
    assert told["text_kl"] > 0.0
    assert "exact_text" in told  # what the recipe measures itself stays
    assert told["text_nats"] > told["text_nats_backbone"] + 0.01


def test_so_many_tokens_are_measured_as_the_backbone_alone_says(
    backbone: Path, root: Path, data: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(retention, "NUM_TOKENS", 7)
    stage = open_stage(joined(lr=1e-3), Places(root=root, data=data))
    gate = open_gate(stage, TextBound(backbone=backbone, most=1.0))
    (batch,) = gate._batches
    chosen = batch.labels[:, 0] != -100
    assert int(chosen.sum()) == int((batch.labels != -100).sum()) == 7
    assert batch.backbone_says is not None
    stock = open_backbone(backbone).model
    with torch.no_grad():
        logits = stock(input_ids=batch.grid[:, 0].clamp(max=299), attention_mask=batch.mask.long()).logits
    torch.testing.assert_close(batch.backbone_says, logits[chosen].log_softmax(-1), atol=1e-5, rtol=0)


def test_another_backbone_another_stage_and_half_a_bound_are_refused(
    backbone: Path, complete: Complete, root: Path, data: Path
):
    other = complete(other_text(seed=5))
    bound = TextBound(backbone=other, most=1.0)
    with pytest.raises(ConfigError, match="begins with a model of"):
        list(run_stage(joined(lr=1e-3), root=root, data=data, text_bound=bound))
    with pytest.raises(ConfigError, match="stages 1 to 3"):
        list(
            run_stage(
                dialogue("pocket-text"), root=root, data=data, anew=True, resume=False, text_bound=bound
            )
        )
    with pytest.raises(ConfigError, match="from 0"):
        TextBound(backbone=other, most=-1.0)
    given = ["train", "pocket-joint", "--max-text-drop", "0.1", "--root", str(root), "--data", str(data)]
    result = CliRunner().invoke(app, given)
    assert (result.exit_code, "go together" in result.stderr) == (2, True)
