"""Figures: how often each expert serves audio, text, and audio alone (the paper's), and how stage RL went."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deeptalk.errors import ConfigError
from deeptalk.experts import ExpertLoad
from deeptalk.experts.partition import audio_score


def check_figure(path: Path) -> None:
    """Refuse a figure that couldn't be drawn, before anything is measured for it; raises `ConfigError`."""
    kinds = _new_figure().canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".") not in kinds:
        raise ConfigError(f"{path} names no kind of figure; end it in one of .{', .'.join(sorted(kinds))}.")


def draw_load(load: ExpertLoad, path: Path) -> None:
    """Draw a load in the kind of file that the suffix names; raises `ConfigError` as `check_figure` does."""
    check_figure(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    load_figure(load).savefig(path, dpi=120)


def load_figure(load: ExpertLoad) -> Any:
    """Bars of audio and text for the first, the middle and the last layer, and below them maps of all layers.

    The maps are of the rates of audio and of text, and of the score by which experts are chosen.
    """
    rates = load.normalised("rate")
    num_layers, num_experts = rates.shape[1:]
    height = 1 + 0.35 * num_layers
    figure = _new_figure(figsize=(14, 4 + height), layout="constrained")
    bars, images = figure.subplots(2, 3, height_ratios=(3, height))
    for place, layer in zip(bars, (0, num_layers // 2, num_layers - 1), strict=True):
        for shift, name, values in ((-0.2, "audio", rates[0, layer]), (0.2, "text", rates[1, layer])):
            place.bar([expert + shift for expert in range(num_experts)], values.tolist(), 0.4, label=name)
        place.set(title=f"layer {layer}", xlabel="expert", ylabel="choices per token", ylim=(0, None))
        place.legend()
    maps = {"audio": rates[0], "text": rates[1], "score: audio (1 - text)": audio_score(rates)}
    for place, (title, values) in zip(images, maps.items(), strict=True):
        image = place.imshow(values.numpy(), aspect="auto", cmap="viridis", vmin=0)
        place.set(title=title, xlabel="expert", ylabel="layer")
        figure.colorbar(image, ax=place)
    return figure


def draw_preference(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the metrics of a preference stage: loss, rewards of both answers, accuracy and lengths.

    All but the loss are of held-out pairs, by step. Raises `ConfigError` as `check_figure` does.
    """
    check_figure(path)
    told = [line for line in lines if line["evaluation"]]
    steps = [line["step"] for line in told]
    figure = _new_figure(figsize=(12, 7), layout="constrained")
    loss, rewards, accuracy, frames = figure.subplots(2, 2).flat
    loss.plot([line["step"] for line in lines], [line["loss"] for line in lines])
    for place, names in (
        (rewards, {"reward_win": "winner", "reward_lose": "loser", "margin": "margin"}),
        (accuracy, {"accuracy": "winner has the higher reward"}),
        (frames, {"frames_win": "winner", "frames_lose": "loser"}),
    ):
        for name, label in names.items():
            place.plot(steps, [line["evaluation"][name] for line in told], marker="o", label=label)
        place.legend()
    frames.margins(y=0.5)
    loss.set(title="loss of the pairs that are learnt", xlabel="step")
    rewards.set(title="rewards of held-out pairs", xlabel="step")
    accuracy.set(title="accuracy on held-out pairs", xlabel="step", ylim=(0, 1))
    frames.set(title="frames of held-out answers", xlabel="step", ylim=(0, None))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _new_figure(**options: Any) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("drawing needs matplotlib: pip install 'deeptalk[plots]'.") from error
    return Figure(**options)
