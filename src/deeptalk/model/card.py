"""The model card: what a model is, where its weights come from, what was measured, under which licence."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from deeptalk.model.config import DeepTalkConfig

UNKNOWN = "not stated"
_NOTES = "<!-- notes -->"


def model_card(
    config: DeepTalkConfig,
    *,
    name: str,
    num_parameters: int,
    licence: str | None,
    provenance: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None = None,
    notes: str | None = None,
) -> str:
    """A README.md in the form of the Hugging Face Hub.

    ``licence`` is one of the hub's identifiers; what isn't given is said to be unknown. ``provenance`` is
    that of the weights, ``evaluation`` what ``deeptalk eval`` wrote, ``notes`` the words of whoever made it.
    """
    blocks = [
        _header(licence),
        f"# {name}\n\nA mixture-of-experts language model that hears and speaks, in DeepTalk's layout.",
        *([f"{_NOTES}\n{notes.strip()}\n{_NOTES}"] if notes else []),
        "## Parts\n\n" + _table(("part", "what"), _parts(config, num_parameters)),
        "## Use\n\n" + _USE,
        "## Recipe\n\n" + _table(("what", "value"), _recipe(provenance)),
        "## Data\n\n" + _table(("data set", "hash of its manifest"), _data(provenance)),
        "## Evaluation\n\n" + _table(("measure", "value", "95 % interval", "of"), _scores(evaluation)),
        f"## Licence\n\n{licence or UNKNOWN}",
    ]
    return "\n\n".join(blocks) + "\n"


def licence_of(card: str) -> str | None:
    """The licence that the header of a card names, if any."""
    found = re.search(r"\A---\n(?:.*\n)*?license: *(.+)\n(?:.*\n)*?---", card)
    return None if found is None else found[1].strip().strip("\"'")


def notes_of(card: str) -> str | None:
    """The notes of a card of ours, or all of another one below its header."""
    if _NOTES in card:
        return card.split(_NOTES)[1].strip()
    is_ours = 'library_name: "deeptalk"' in card
    return None if is_ours else re.sub(r"\A---\n(?:.*\n)*?---\n", "", card).strip() or None


_USE = """```python
import deeptalk.model.hub
from transformers import AutoModel

model = AutoModel.from_pretrained("this repository or its folder")
```"""


def _header(licence: str | None) -> str:
    lines = {
        "library_name": "deeptalk",
        "pipeline_tag": "audio-to-audio",
        "tags": ["deeptalk", "mixture-of-experts", "speech-to-speech"],
        **({} if licence is None else {"license": licence}),
    }
    return "---\n" + "\n".join(f"{key}: {json.dumps(value)}" for key, value in lines.items()) + "\n---"


def _parts(config: DeepTalkConfig, num_parameters: int) -> Iterator[tuple[str, str]]:
    encoder, adapter, layout, experts = config.encoder, config.adapter, config.layout, config.audio_experts
    yield "parameters", f"{num_parameters:,}"
    yield "backbone", f"{config.backbone['model_type']}, text table of {layout.vocab_size:,} rows"
    yield (
        "encoder",
        f"Whisper architecture, {encoder.layers} layers of width {encoder.d_model}, {encoder.mode}",
    )
    yield "adapter", f"{adapter.kind}, stride {adapter.stride}"
    yield (
        "streams",
        f"text and {layout.num_codebooks} codebooks of {layout.codebook_size} codes, {config.fusion}",
    )
    yield "voices", ", ".join(layout.speakers) or "none"
    yield "template", f"{layout.template.digest} (hash)"
    if experts is not None:
        yield "audio experts", f"{', '.join(str(len(layer)) for layer in experts)} in its layers"
    if config.extra_experts is not None:
        yield "copied experts", f"{config.extra_experts.num_experts} a layer, {config.extra_experts.routing}"
    yield "routing", ", ".join(f"{kind} to {group}" for kind, group in config.routing.items())


def _recipe(provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    recipe = provenance.get("recipe")
    if isinstance(recipe, Mapping):
        yield "recipe", str(recipe.get("name", UNKNOWN))
        yield "paper", str(recipe.get("paper", UNKNOWN))
    for key in ("recipe_hash", "commit", "torch", "converted_from"):
        if key in provenance:
            yield key.replace("_", " "), str(provenance[key])
    for stage, digest in _mapping(provenance, "starts_from").items():
        yield "starts from", f"{stage} ({digest})"


def _data(provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, digest in _mapping(provenance, "manifests").items():
        yield str(name), str(digest)


def _scores(evaluation: Mapping[str, Any] | None) -> Iterator[tuple[str, str, str, str]]:
    for name, score in _mapping(evaluation or {}, "scores").items():
        value, low, high = (score.get(key) for key in ("value", "low", "high"))
        told = UNKNOWN if value is None else f"{value:,.4g} {score['unit']}"
        interval = "" if low is None or high is None else f"{low:,.4g} to {high:,.4g}"
        yield name, told, interval, str(score.get("total") or "")


def _mapping(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = values.get(key)
    return found if isinstance(found, Mapping) else {}


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """A table in Markdown; without a row it says so."""
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    if not lines:
        return UNKNOWN
    return "\n".join(f"| {line} |" for line in (" | ".join(head), " | ".join("---" for _ in head), *lines))
