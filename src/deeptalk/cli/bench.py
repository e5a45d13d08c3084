"""``deeptalk bench``: what a choice costs on this machine, both sides measured in one run."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deeptalk.cli.arguments import Json, Model
from deeptalk.cli.bench_serving import crowd, latency, sessions
from deeptalk.cli.bench_train import train

if TYPE_CHECKING:
    from deeptalk.backbone import Backbone, RouterMask
    from deeptalk.shapes import Tensor

bench = typer.Typer(help="Measure what a choice costs on this machine.", no_args_is_help=True)


@bench.callback()
def choices() -> None:
    """Measure what a choice costs on this machine."""


bench.command()(latency)
bench.command()(sessions)
bench.command()(crowd)
bench.command()(train)


@bench.command()
def dense(
    model: Model = "pocket",
    experts: Annotated[
        int | None,
        typer.Option(
            "--experts", metavar="N", help="Audio experts, drawn by lot; else the model's own.", min=1
        ),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", metavar="N", help="Rows of a batch.", min=1)] = 4,
    positions: Annotated[
        int, typer.Option("--positions", metavar="N", help="Positions of a row.", min=1)
    ] = 256,
    steps: Annotated[int, typer.Option("--steps", metavar="N", help="Steps of each form.", min=1)] = 5,
    json: Json = False,
) -> None:
    """Stage 2.1 with and without the experts that it masks.

    Bytes of the backbone's parameters, and the time of forward and backward of the audio experts; the steps
    of both forms alternate, and the fastest one of each counts.
    """
    from deeptalk.backbone import RouterMask
    from deeptalk.cli.output import print_counts
    from deeptalk.experts import random_partition
    from deeptalk.model import load
    from deeptalk.model.pruned import load_pruned

    whole = load(model)
    shape = whole.backbone.layers
    kept = whole.is_audio() if experts is None else None
    if experts is not None:
        kept = random_partition(
            0,
            num_layers=shape.num_moe_layers,
            num_experts=shape.num_experts,
            num_audio_experts=experts,
            experts_per_token=shape.experts_per_token,
        ).is_audio
    assert kept is not None
    whole.split(kept)
    forms = {"masked": whole.backbone, "pruned": load_pruned(model, kept).backbone}
    figures = _compare(forms, RouterMask(table=kept[None]), rows=rows, positions=positions, steps=steps)
    sizes = {
        "experts": shape.num_experts,
        "audio_experts": int(kept[0].sum()),
        "experts_per_token": shape.experts_per_token,
        "positions": rows * positions,
    }
    print_counts("dense", {"model": model, **sizes, **figures}, is_json=json)


def _compare(
    forms: "Mapping[str, Backbone]", mask: "RouterMask", *, rows: int, positions: int, steps: int
) -> dict[str, Any]:
    """Bytes, time and the difference of gradients of the masked and the pruned form."""
    from time import perf_counter

    import torch

    generator, masked = torch.Generator().manual_seed(0), forms["masked"]
    ids = torch.randint(masked.embed_tokens.num_embeddings, (rows, positions), generator=generator)
    direction = torch.randn(rows, positions, masked.hidden_size, generator=generator)
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    gradients: "dict[str, Tensor]" = {}
    for name, parameter in ((n, p) for backbone in forms.values() for n, p in backbone.named_parameters()):
        parameter.requires_grad_(".experts.audio." in name)
    for _ in range(steps):
        for form, backbone in forms.items():
            backbone.zero_grad()
            x = backbone.embed_tokens(ids)
            begun = perf_counter()
            hidden = backbone(x, groups=torch.zeros_like(ids), router_mask=mask).hidden
            (hidden * direction).sum().backward()
            seconds[form].append(perf_counter() - begun)
            trained = [p.grad.flatten() for p in backbone.parameters() if p.grad is not None]
            gradients[form] = torch.cat(trained)
    size = {form: sum(p.numel() * p.element_size() for p in b.parameters()) for form, b in forms.items()}
    times = {form: 1000 * min(values) for form, values in seconds.items()}
    apart = gradients["pruned"] - gradients["masked"]
    return {
        "masked_bytes": size["masked"],
        "pruned_bytes": size["pruned"],
        "bytes_ratio": size["pruned"] / size["masked"],
        "masked_ms": times["masked"],
        "pruned_ms": times["pruned"],
        "time_ratio": times["pruned"] / times["masked"],
        "gradient_difference": float(apart.norm() / gradients["masked"].norm()),
    }
