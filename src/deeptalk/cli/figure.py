"""The paper's load figure: how often each expert of each layer serves audio, text, and audio alone."""

from pathlib import Path

from deeptalk.errors import ConfigError
from deeptalk.experts import ExpertLoad
from deeptalk.experts.partition import audio_score


def draw_load(load: ExpertLoad, path: Path) -> None:
    """Draw a load as three maps of layer by expert, in the kind of file that the suffix names."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("drawing needs matplotlib: pip install 'deeptalk[plots]'.") from error
    rates = load.normalised("rate")
    maps = {"audio": rates[0], "text": rates[1], "score: audio (1 - text)": audio_score(rates)}
    figure = Figure(figsize=(12, 1 + 0.35 * rates.shape[1]), layout="constrained")
    for place, (title, values) in zip(figure.subplots(1, 3), maps.items(), strict=True):
        image = place.imshow(values.numpy(), aspect="auto", cmap="viridis", vmin=0)
        place.set(title=title, xlabel="expert", ylabel="layer")
        figure.colorbar(image, ax=place)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(path, dpi=120)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
