"""``deeptalk bench train``: how fast a stage trains here, on random weights and random codes."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deeptalk.cli.arguments import Json

if TYPE_CHECKING:
    import torch

    from deeptalk.model import DeepTalk
    from deeptalk.streams import Batch
    from deeptalk.training.recipe import Recipe

_NOMINAL_TFLOPS = {"H200": 989, "H100": 989, "A100": 312}
"""Dense bf16, by the makers' tables."""


class Size(StrEnum):
    """How large the model is."""

    TINY = "tiny"
    FULL = "full"


class StageName(StrEnum):
    """A stage of the paper."""

    ALIGN = "align"
    AUDIO_EXPERTS = "audio-experts"
    TEXT_EXPERTS = "text-experts"
    JOINT = "joint"


def train(
    stage: Annotated[StageName, typer.Option("--stage", help="A stage of the paper.")] = StageName.JOINT,
    size: Annotated[
        Size, typer.Option("--size", help="tiny runs on a CPU; full is DeepSeek-V2-Lite and needs a GPU.")
    ] = Size.TINY,
    pruned: Annotated[
        bool, typer.Option("--dense", help="Stage 2.1 without the experts that it masks.")
    ] = False,
    positions: Annotated[
        int | None,
        typer.Option(
            "--positions",
            metavar="N",
            help="Positions of a micro-batch; 512 of tiny, else the recipe's.",
            min=16,
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", metavar="N", help="Steps that count.", min=1)] = 5,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="a.b=c", help="Change a value of the recipe; repeatable."),
    ] = None,
    json: Json = False,
) -> None:
    """Tokens per second, use of the arithmetic that there is, and peak memory of a stage.

    Runs the training loop on random weights and random codes; no data and no encoder. Launched by
    `accelerate launch`, it measures all processes together. Two steps come first that don't count.
    """
    from accelerate.utils import set_seed

    from deeptalk.cli.output import print_counts
    from deeptalk.errors import ConfigError
    from deeptalk.recipes import RECIPES
    from deeptalk.training.engine import build_accelerator
    from deeptalk.training.override import override

    if pruned and stage is not StageName.AUDIO_EXPERTS:
        raise ConfigError(
            "--dense is for --stage audio-experts: only stage 2.1 masks experts that it can miss."
        )
    accelerator = build_accelerator()
    if size is Size.FULL and accelerator.device.type == "cpu":
        raise ConfigError(
            "--size full takes 31 GB of a GPU for the weights alone, and there is none; take tiny."
        )
    recipe = override(RECIPES[stage.value], *(settings or []))
    if size is Size.TINY:
        recipe = _small(recipe)
    num_positions = positions or recipe.batch_size
    recipe = replace(
        recipe, num_steps=steps + 2, epochs=None, batch_size=num_positions, accumulate=1, save_every=10**9
    )
    set_seed(0)
    run = Setting(recipe=recipe, is_pruned=pruned, is_full=size is Size.FULL)
    figures = measure(run, accelerator)
    if accelerator.is_main_process:
        told = {"stage": stage.value, "size": size.value, "dense": pruned, "steps": steps, **figures}
        print_counts("train", told, is_json=json)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What is measured."""

    recipe: "Recipe"
    is_pruned: bool
    is_full: bool


def measure(setting: Setting, accelerator: Any) -> dict[str, Any]:
    """The figures of one stage, of all processes together."""
    from statistics import median

    from deeptalk.training.loop import train as run_loop
    from deeptalk.training.memory import check_memory, least_bytes
    from deeptalk.training.run import recompute
    from deeptalk.training.trainable import freeze_all_but
    from deeptalk.training.work import work_of

    recipe, device = setting.recipe, accelerator.device
    model, objective = _build(setting, device)
    freeze_all_but(model, recipe.trains)
    if recipe.recompute != "none":
        recompute(model, recipe)
    number = accelerator.num_processes
    check_memory(model, recipe, device=device, num_processes=number)
    work, predicted = work_of(model, recipe.routing), least_bytes(model, recipe, num_processes=number)
    peak, source = peak_flops(device, recipe)
    reports = run_loop(
        model,
        recipe=recipe,
        objective=objective,
        batches=_Repeated(_batch(model, recipe)),
        accelerator=accelerator,
    )
    rates = [report.tokens_per_second for report in reports][2:]
    rate = median(rates)
    return {
        "device": _name(device),
        "processes": number,
        "weights": f"random, {recipe.weights}",
        "positions": recipe.batch_size,
        "tokens_per_second": rate,
        "flops_per_token": work.frozen_aware_flops,
        "use_6n": rate * work.six_n_flops / (peak * number),
        "use_frozen_aware": rate * work.frozen_aware_flops / (peak * number),
        "peak_tflops": peak / 1e12,
        "peak_tflops_from": source,
        "peak_bytes": _peak_bytes(device),
        "predicted_bytes": predicted,
    }


def peak_flops(device: "torch.device", recipe: "Recipe") -> "tuple[float, str]":
    """What a device can do in a second: by its maker's table, or else the fastest of a few products here."""
    import torch

    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for part, tflops in _NOMINAL_TFLOPS.items():
            if part in name:
                return tflops * 1e12, "table"
    size = 8_192 if device.type == "cuda" else 768
    dtype = torch.bfloat16 if recipe.precision == "bf16" and device.type == "cuda" else torch.float32
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = min(_seconds(lambda: left @ right, device) for _ in range(5))
    return 2 * size**3 / best, "measured"


def _seconds(call: Any, device: "torch.device") -> float:
    from time import perf_counter

    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begun = perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter() - begun


def _small(recipe: "Recipe") -> "Recipe":
    """The stage for the tiny model on a CPU."""
    objective: Any = recipe.objective
    objective = replace(objective, text_chunk=None)
    return replace(recipe, objective=objective, batch_size=512, precision="fp32", weights="fp32")


def _build(setting: Setting, device: "torch.device") -> "tuple[DeepTalk, Any]":
    """A random model, its experts divided, and the stage's loss with its mask."""
    import torch

    from deeptalk.backbone import open_backbone
    from deeptalk.backbone.dense import prune_experts
    from deeptalk.backbone.lite import DEEPSEEK_V2_LITE
    from deeptalk.cli.memory import config_around
    from deeptalk.experts import ExpertPartition, router_mask
    from deeptalk.model import DeepTalk, DeepTalkConfig

    recipe = setting.recipe
    if setting.is_full:
        with torch.device(device):
            backbone = open_backbone(dict(DEEPSEEK_V2_LITE), dtype=recipe.dtype)
            model = DeepTalk(config_around(backbone), backbone=backbone).to(recipe.dtype)
    else:
        model = DeepTalk(DeepTalkConfig.tiny()).to(recipe.dtype)
    shape = model.backbone.layers
    is_audio = torch.zeros(shape.num_moe_layers, shape.num_experts, dtype=torch.bool)
    is_audio[:, : shape.experts_per_token] = True
    objective: Any = recipe.objective
    if setting.is_pruned:
        prune_experts(model.backbone, is_audio)
        return model, objective
    model.split(is_audio)
    if recipe.routing is not None and not recipe.routing.is_free:
        partition = ExpertPartition(is_audio=is_audio, experts_per_token=shape.experts_per_token)
        objective = replace(objective, router_mask=router_mask(partition, recipe.routing))
    return model, objective


def _batch(model: "DeepTalk", recipe: "Recipe") -> "Batch":
    """Spoken answers of random words and codes, every position learnt."""
    import torch

    from deeptalk.streams import Batch
    from deeptalk.streams.modality import Kind, Row

    longest = min(recipe.max_positions, recipe.batch_size, 256 if recipe.batch_size <= 512 else 10**9)
    rows = max(1, recipe.batch_size // longest)
    layout, generator = model.layout, torch.Generator().manual_seed(0)
    text = torch.randint(layout.vocab_size, (rows, 1, longest), generator=generator)
    codes = torch.randint(layout.codebook_size, (rows, layout.num_codebooks, longest), generator=generator)
    grid = torch.cat([text, codes], dim=1)
    return Batch(
        grid=grid,
        labels=grid.roll(-1, dims=-1),
        kind=torch.full((rows, longest), int(Kind.ANSWER)),
        row=torch.full((rows,), int(Row.SPEECH)),
        mask=torch.ones(rows, longest, dtype=torch.bool),
        speech_at=torch.full((rows, longest), -1),
        mel=None,
        encoded=None,
        speech_lengths=torch.zeros(0, dtype=torch.long),
    )


class _Repeated:
    """The same batch again and again."""

    def __init__(self, batch: "Batch") -> None:
        self.batch = batch

    def __next__(self) -> "Batch":
        return self.batch

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def _peak_bytes(device: "torch.device") -> int:
    """The most that this process has held: of a GPU what tensors took, of a machine all of the process."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    from resource import RUSAGE_SELF, getrusage

    return getrusage(RUSAGE_SELF).ru_maxrss * 1_024


def _name(device: "torch.device") -> str:
    import torch

    return (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"cpu, {torch.get_num_threads()} threads"
    )
