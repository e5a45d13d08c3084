"""Stage 2.1 without the masked experts equals stage 2.1 with them, and goes back into the full checkpoint.

Tolerance: in fp32 the loss, and the gradient of all parameters as one vector, differ by at most a millionth
of their size; in fp64 the gradient of every single tensor by at most 1e-12 of its own.
"""

import copy
from pathlib import Path

import pytest
import torch
from families import CONFIGS, NAMED, tiny
from safetensors.torch import save_file
from torch import nn

from deeptalk.backbone import (
    Backbone,
    RouterMask,
    fused_state_dict,
    load_fused_state_dict,
    merged_tensors,
    open_backbone,
    open_pruned,
    prune_experts,
    sequence_balance_loss,
    split_experts,
)
from deeptalk.backbone.banks import made
from deeptalk.backbone.dense import KeptExperts
from deeptalk.errors import CheckpointError, ConfigError

IDS = torch.randint(0, 97, (3, 11), generator=torch.Generator().manual_seed(7))
FP32, FP64 = 1e-6, 1e-12


def some_experts(backbone: Backbone, number: int, *, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (backbone.layers.num_moe_layers, backbone.layers.num_experts)
    chosen = torch.rand(shape, generator=generator).topk(number).indices
    return torch.zeros(shape, dtype=torch.bool).scatter(1, chosen, True)


def loss(backbone: Backbone, kept: torch.Tensor) -> torch.Tensor:
    """Next tokens and the balance of experts, all tokens masked to the kept ones."""
    mask, groups = RouterMask(table=torch.stack([kept, kept])), IDS % 2
    x = backbone.embed_tokens(IDS)
    output = backbone(x, groups=groups, router_mask=mask, collect=True)
    logits = backbone.lm_head(output.hidden[:, :-1])
    cross_entropy = nn.functional.cross_entropy(logits.flatten(0, 1), IDS[:, 1:].flatten())
    return cross_entropy + 0.1 * sequence_balance_loss(output.router, torch.ones_like(IDS, dtype=torch.bool))


def merged(backbone: Backbone, files: list[Path], *, prefix: str) -> dict[str, torch.Tensor]:
    """The full checkpoint of a pruned backbone, with all tensors made."""
    state = merged_tensors(backbone, files, prefix=prefix)
    return {name: made(tensor) for name, tensor in state.items()}


def banks_of(backbone: Backbone) -> list[KeptExperts]:
    return [block.experts for block in backbone.moe_blocks()]


def gradients(backbone: Backbone, kept: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of every parameter, under stock names, those of experts for the kept ones only."""
    found = {}
    layers = dict(zip(backbone.block_names, kept, strict=True))
    for name, parameter in backbone.model.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        block, _, leaf = name.partition(".experts.")
        if leaf and backbone.kept is None:
            assert not gradient[~layers[block]].any()
            gradient = gradient[layers[block]]
        found[name.replace(".experts.audio.", ".experts.")] = gradient
    return found


def pair(
    name: str, number: int, *, dtype: torch.dtype = torch.float32
) -> tuple[Backbone, Backbone, torch.Tensor]:
    """A masked and a pruned form of one backbone, and the experts kept."""
    masked = tiny(name).to(dtype)
    if dtype == torch.float64:
        masked.model.set_experts_implementation("eager")  # the others know no doubles
    kept, pruned = some_experts(masked, number), copy.deepcopy(masked)
    prune_experts(pruned, kept)
    return masked, pruned, kept


def both_gradients(masked: Backbone, pruned: Backbone, kept: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    for backbone in (masked, pruned):
        loss(backbone, kept).backward()
    found = [gradients(backbone, kept) for backbone in (masked, pruned)]
    assert found[0].keys() == found[1].keys()
    assert all(gradient.any() for key, gradient in found[0].items() if ".experts." in key)
    return found


@pytest.fixture
def checkpoint(tmp_path: Path):
    """Writes a backbone as a file of stacked tensors behind a prefix, and gives its config and the file."""

    def write(backbone: Backbone) -> tuple[dict, list[Path]]:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        save_file({f"x.{name}": tensor.clone() for name, tensor in fused_state_dict(backbone).items()}, path)
        config = backbone.model.config
        return config.to_diff_dict() | {"model_type": config.model_type}, [path]

    return write


@pytest.mark.parametrize("number", [2, 3, 5])  # fewer than, as many as and more than the three of a token
@pytest.mark.parametrize("name", NAMED)
def test_loss_and_gradient_equal_those_of_the_masked_model(name: str, number: int) -> None:
    masked, pruned, kept = pair(name, number)
    assert all(bank.is_dense == (number <= 3) for bank in banks_of(pruned))
    expected = loss(masked, kept)
    assert abs(loss(pruned, kept) - expected) <= FP32 * expected
    wanted, got = (
        torch.cat([g.flatten() for g in found.values()]) for found in both_gradients(masked, pruned, kept)
    )
    assert (got - wanted).norm() <= FP32 * wanted.norm()


@pytest.mark.parametrize("number", [2, 3, 5])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_gradient_is_exact_but_for_rounding(name: str, number: int) -> None:
    masked, pruned, kept = pair(name, number, dtype=torch.float64)
    wanted, got = both_gradients(masked, pruned, kept)
    for key, gradient in wanted.items():
        assert (got[key] - gradient).norm() <= FP64 * gradient.norm(), key


def test_the_routed_part_is_one_swiglu() -> None:
    _, pruned, _ = pair("mixtral", 3)
    experts = banks_of(pruned)[0]
    x, generator = torch.ones(5, 32), torch.Generator().manual_seed(0)
    weights = torch.rand(5, 3, generator=generator)
    numbers = torch.tensor(experts.rows).expand(5, 3)
    gate, up = experts.bank.gate_up_proj.chunk(2, dim=1)
    hidden = nn.functional.silu(x @ gate.flatten(0, 1).T) * (x @ up.flatten(0, 1).T)
    hidden = hidden * weights.repeat_interleave(24, dim=1)
    by_hand = hidden @ experts.bank.down_proj.transpose(0, 1).flatten(1).T
    torch.testing.assert_close(experts(x, numbers, weights), by_hand)


@pytest.mark.parametrize("name", CONFIGS)
def test_opening_reads_the_same_as_pruning(name: str, checkpoint) -> None:
    full = tiny(name)
    kept = some_experts(full, 3)
    settings, files = checkpoint(full)
    opened = open_pruned(settings, files, kept, prefix="x.", attention="eager").eval()
    prune_experts(full, kept)
    expected = full.state_dict()
    assert opened.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in opened.state_dict().items())
    assert opened.layers == full.layers
    x = full.embed_tokens(IDS)
    torch.testing.assert_close(opened(x).hidden, full(x).hidden, atol=1e-5, rtol=0)


def test_experts_left_out_are_never_read(checkpoint) -> None:
    full = tiny("deepseek_v2")
    kept = some_experts(full, 3)
    for block, members in zip(full.moe_blocks(), kept, strict=True):
        for tensor in block.experts.parameters():
            tensor.data[~members] = float("nan")
    settings, files = checkpoint(full)
    opened = open_pruned(settings, files, kept, prefix="x.")
    assert all(tensor.isfinite().all() for tensor in opened.parameters())
    full.lm_head.weight.data[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match=r"x.lm_head.weight holds numbers that are not finite"):
        open_pruned(*checkpoint(full), kept, prefix="x.")


@pytest.mark.parametrize("number", [3, 5])
@pytest.mark.parametrize("name", NAMED)
def test_training_goes_back_into_the_full_checkpoint(name: str, number: int, checkpoint) -> None:
    full = tiny(name)
    kept = some_experts(full, number)
    settings, files = checkpoint(full)
    pruned = open_pruned(settings, files, kept, prefix="x.")
    before = fused_state_dict(full)
    untrained = merged(pruned, files, prefix="x.")
    assert untrained.keys() == before.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in untrained.items())

    for key, parameter in pruned.named_parameters():
        parameter.requires_grad_(".experts.audio." in key or "mlp.gate.weight" in key)
    optimizer = torch.optim.AdamW(pruned.parameters(), lr=1e-2, weight_decay=0.5)
    loss(pruned, kept).backward()
    optimizer.step()
    after = merged(pruned, files, prefix="x.")
    rows = dict(zip(pruned.block_names, kept, strict=True))
    for key, tensor in after.items():
        members = rows.get(key.removesuffix(".gate.weight").partition(".experts.")[0])
        if members is None or ".shared_expert" in key:
            assert torch.equal(tensor, before[key]), key
        else:
            is_moved = (tensor != before[key]).flatten(1).any(1)
            assert torch.equal(is_moved, members), key
    reopened = tiny(name, seed=9)
    load_fused_state_dict(reopened, after)
    torch.testing.assert_close(loss(reopened, kept), loss(pruned, kept))


def test_experts_left_out_keep_every_bit_beside_a_narrower_backbone(checkpoint) -> None:
    full = tiny("olmoe")
    kept = some_experts(full, 3)
    settings, files = checkpoint(full)
    narrow = open_pruned(settings, files, kept, prefix="x.", dtype=torch.bfloat16)
    whole, before = merged(narrow, files, prefix="x."), fused_state_dict(full)
    for block, members in zip(full.block_names, kept, strict=True):
        one, other = (state[f"{block}.experts.down_proj"] for state in (whole, before))
        assert torch.equal(one[~members], other[~members])
        assert torch.equal(one[members], other[members].bfloat16().float())


def test_tied_tables_stand_in_the_file_once(checkpoint) -> None:
    full = open_backbone(CONFIGS["qwen3_moe"] | {"tie_word_embeddings": True})
    kept = some_experts(full, 3)
    settings, _ = checkpoint(full)
    state = {f"x.{key}": t for key, t in full.model.state_dict().items() if key != "lm_head.weight"}
    path = checkpoint(full)[1][0].with_name("tied.safetensors")
    save_file(state, path)
    pruned = open_pruned(settings, [path], kept, prefix="x.")
    assert pruned.lm_head.weight is pruned.embed_tokens.weight
    assert torch.equal(pruned.lm_head.weight, full.lm_head.weight)
    assert f"x.{next(iter(merged(pruned, [path], prefix='x.')))}" in state


def test_no_token_reaches_an_expert_that_is_not_there() -> None:
    masked, pruned, kept = pair("qwen3_moe", 3)
    x, groups = masked.embed_tokens(IDS), torch.zeros_like(IDS)
    mask = RouterMask(table=kept[None])
    expected = masked(x, groups=groups, router_mask=mask).hidden
    torch.testing.assert_close(pruned(x).hidden, expected, atol=1e-5, rtol=0)  # without a mask, too
    with pytest.raises(ConfigError, match="allows experts that this pruned backbone has left out"):
        pruned(x, groups=groups, router_mask=RouterMask(table=~kept[None]))


def test_decisions_are_collected_in_the_numbers_of_the_full_model() -> None:
    masked, pruned, kept = pair("deepseek_v2", 5)
    x, groups = masked.embed_tokens(IDS), torch.zeros_like(IDS)
    options = {"groups": groups, "router_mask": RouterMask(table=kept[None]), "collect": True}
    wanted, got = masked(x, **options).router, pruned(x, **options).router
    for one, other in zip(wanted, got, strict=True):
        assert torch.equal(one.experts, other.experts)
        torch.testing.assert_close(other.logits, one.logits)


WRONG = {
    "another number of layers": lambda kept: kept[:1],
    "another number of experts": lambda kept: kept[:, :6],
    "no table of bools": lambda kept: kept.long(),
    "none kept": torch.zeros_like,
    "all kept": torch.ones_like,
    "more in one layer": lambda kept: kept | torch.eye(2, 8, dtype=torch.bool),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_experts_of_another_backbone_are_refused(change, checkpoint) -> None:
    full = tiny("deepseek_v2")
    kept = torch.tensor([[False, True, True] + 5 * [False]] * 2)
    settings, files = checkpoint(full)
    for attempt in (
        lambda: prune_experts(full, change(kept)),
        lambda: open_pruned(settings, files, change(kept), prefix="x."),
    ):
        with pytest.raises(
            ConfigError, match=r"this backbone has 2 layers of 8|same number of experts, from 1 to 7"
        ):
            attempt()
    assert full.kept is None


def test_pruning_happens_once_and_alone() -> None:
    full, pruned, kept = pair("olmoe", 3)
    split_experts(full, kept)
    with pytest.raises(ConfigError, match="split already"):
        prune_experts(full, kept)
    with pytest.raises(ConfigError, match="backbone is pruned"):
        prune_experts(pruned, kept)
    with pytest.raises(ConfigError, match="backbone is pruned"):
        split_experts(pruned, kept)
    with pytest.raises(CheckpointError, match="lacks experts"):
        fused_state_dict(pruned)


def test_the_checkpoint_of_another_backbone_is_refused(checkpoint, tmp_path: Path) -> None:
    full, pruned, kept = pair("qwen3_moe", 3)
    settings, files = checkpoint(full)
    other = checkpoint(open_backbone(CONFIGS["qwen3_moe"] | {"num_experts": 6}))[1]
    with pytest.raises(CheckpointError, match=r"\[6, 48, 32\] instead of \[8, 48, 32\]"):
        merged_tensors(pruned, other, prefix="x.")
    with pytest.raises(CheckpointError, match=r"\[6, 48, 32\] instead of \[8, 48, 32\]"):
        open_pruned(settings, other, kept, prefix="x.")
    with pytest.raises(CheckpointError, match="no tensor model"):
        open_pruned(settings, files, kept)
    with pytest.raises(CheckpointError, match="nothing is to be merged"):
        merged_tensors(full, files, prefix="x.")
    (tmp_path / "damaged.safetensors").write_bytes(b"no header")
    with pytest.raises(CheckpointError, match="damaged or no safetensors"):
        open_pruned(settings, [tmp_path / "damaged.safetensors"], kept, prefix="x.")
