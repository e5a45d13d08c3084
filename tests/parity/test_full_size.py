"""DeepSeek-V2-Lite at its full size on the meta device: counts and memory are those of method.md."""

import pytest
from transformers.core_model_loading import revert_weight_conversion

from deeptalk.backbone import Backbone, open_outline
from deeptalk.backbone.backbone import config_from_dict
from deeptalk.backbone.checkpoint import map_tensors
from deeptalk.backbone.lite import DEEPSEEK_V2_LITE
from deeptalk.cli.memory import outline_model, plan_memory
from deeptalk.recipes import PIPELINE
from deeptalk.recipes.released import RELEASED, RELEASED_AUDIO_EXPERTS, RELEASED_TEXT_EXPERTS
from deeptalk.training.trainable import freeze_all_but
from deeptalk.training.work import work_of

GB = 1e9


@pytest.fixture
def outline() -> Backbone:
    return open_outline(config_from_dict(dict(DEEPSEEK_V2_LITE)))


def test_parameters_are_those_of_the_paper(outline: Backbone) -> None:
    sizes = {name: tensor.numel() for name, tensor in outline.model.named_parameters()}
    assert sum(sizes.values()) == 15_706_484_224  # 15.706 B
    layer = "model.layers.5.mlp"
    expert = sum(size for name, size in sizes.items() if name.startswith(f"{layer}.experts.")) // 64
    assert expert == 3 * 2_048 * 1_408  # 8.651 M
    assert expert * 6 * 26 == pytest.approx(1.350e9, rel=1e-3)
    assert expert * 58 * 26 == pytest.approx(13.045e9, rel=1e-3)
    shared = sum(size for name, size in sizes.items() if ".shared_experts." in name)
    assert shared == pytest.approx(0.450e9, rel=1e-3)
    assert (outline.layers.num_moe_layers, outline.layers.num_experts) == (26, 64)
    assert outline.layers.experts_per_token == 6


def test_every_name_that_the_stock_library_writes_is_mapped(outline: Backbone) -> None:
    tensors = revert_weight_conversion(outline.model, dict(outline.model.state_dict()))
    # each layer has seven, the dense one three more, the others 64 experts, router and shared expert
    assert len(tensors) == 27 * 7 + 3 + 26 * (64 * 3 + 1 + 3) + 3
    places = map_tensors(outline.model, tensors)
    assert set(places.values()) == set(outline.model.state_dict())
    layer = "model.layers.26.mlp.experts"
    for expert in range(64):
        for part, fused in (("gate", "gate_up_proj"), ("up", "gate_up_proj"), ("down", "down_proj")):
            assert places[f"{layer}.{expert}.{part}_proj.weight"] == f"{layer}.{fused}"


def test_the_speech_parts_are_those_of_the_paper(outline: Backbone) -> None:
    model = outline_model(outline)
    assert all(tensor.is_meta for tensor in model.parameters())

    def count(part: str) -> int:
        return sum(tensor.numel() for tensor in model.get_submodule(part).parameters())

    assert count("encoder") == pytest.approx(0.305e9, rel=0.01)
    assert count("heads.codec") == pytest.approx(59.6e6, rel=1e-3)
    assert count("adapter") == 2 * 4 * 1_024 * 7_168 + 7_168 * 2_048  # of stride 4


def test_work_of_every_stage_is_that_of_the_arithmetic(outline: Backbone) -> None:
    model = outline_model(outline)
    expected = {"align": 10.16, "audio-experts": 12.9, "joint": 15.07}  # performance.md, section 5.4
    for recipe in PIPELINE:
        freeze_all_but(model, recipe.trains)
        work = work_of(model, recipe.routing)
        assert work.frozen_aware_flops <= work.six_n_flops == pytest.approx(15.07e9, rel=0.01)
        if recipe.name in expected:
            assert work.frozen_aware_flops == pytest.approx(expected[recipe.name] * 1e9, rel=0.01)
    freeze_all_but(model, RELEASED_AUDIO_EXPERTS.trains)
    assert work_of(model, RELEASED_AUDIO_EXPERTS.routing).frozen_aware_flops == pytest.approx(
        14.3e9, rel=0.01
    )


def test_the_released_scripts_move_what_they_move(outline: Backbone) -> None:
    model = outline_model(outline)
    audio, text = RELEASED_AUDIO_EXPERTS, RELEASED_TEXT_EXPERTS
    untied = 2 * 102_400 * 2_048 + 14 * 4_160 * 2_048 - 131_584 * 2_048  # one tied table is theirs
    for recipe, moved in ((audio, 2.15e9), (text, 13.85e9)):  # method.md, section 9.1
        names = freeze_all_but(model, recipe.trains)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert trained - untied == pytest.approx(moved, rel=0.01)
        layers = {
            name.partition(".self_attn.")[0].rsplit(".", 1)[-1] for name in names if "self_attn" in name
        }
        assert layers == {"0"}  # attention of no other layer
        assert {name for name in names if name.endswith("mlp.gate.weight")}
    assert [r.batch_size // r.max_positions * r.accumulate * 8 for r in RELEASED[:4]] == [144, 448, 160, 256]
    assert RELEASED[4].batch_size // RELEASED[4].max_positions // 2 * RELEASED[4].accumulate * 8 == 256
    assert all(recipe.optim.betas == (0.9, 0.999) for recipe in RELEASED)


def test_memory_of_every_stage_is_that_of_the_arithmetic(outline: Backbone) -> None:
    plan = {stage.stage: stage for stage in plan_memory(outline)}
    expected = {  # method.md, section 10, and for several GPUs performance.md, section 5.2
        "align": (35.1, 32.7, 4.4),  # 16.20 B; of these the adapter of stride 4 and the new rows: 0.193 B
        "audio-experts": (52.9, 34.9, 6.7),
        "audio-experts --dense": (26.8, 8.9, 3.4),
        "text-experts": (215, 55.2, 26.9),
        "joint": (254, 60.1, 31.8),
        "preference": (254, 60.1, 31.8),  # as stage 3: the reference's log-probabilities are precomputed
    }
    assert set(plan) == set(expected)
    for name, given in expected.items():
        stage = plan[name]
        got = [stage.one_gpu_bytes, stage.zero2_bytes(8), stage.zero3_bytes(8)]
        assert [(num_bytes - stage.activation_bytes) / GB for num_bytes in got] == pytest.approx(
            given, rel=0.05
        )
        rows = 2 if name == "preference" else 1  # of a pair
        assert 4 <= stage.activation_bytes / rows / GB <= 7
    small = {name: plan[name].one_gpu_8bit_bytes - plan[name].activation_bytes for name in expected}
    assert [small[name] / GB for name in expected] == pytest.approx(
        [33.2, 38.3, 12.2, 84.5, 95.7, 95.7], rel=0.05
    )
    # 14.40 B of routed experts, of which an eighth is left on each GPU
    divided = {name: plan[name].expert_parallel_bytes(8) - plan[name].activation_bytes for name in expected}
    assert [divided[name] / GB for name in expected] == pytest.approx(
        [9.9, 11.3, 7.9, 30.0, 52.5, 52.5], rel=0.05
    )
    assert plan["audio-experts"].num_trained == pytest.approx(1.47e9, rel=0.01)
