"""The model class of OpenCompass, for the text benchmarks of table 3 by the ids of its collections.

OpenCompass is installed apart (``pip install opencompass``) and finds the class by its name::

    models = [dict(type="deeptalk.evaluation.benchmarks.opencompass_model.DeepTalkModel", path="DIR",
                   abbr="deeptalk", max_out_len=512, batch_size=8)]
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deeptalk.decoding import load
from deeptalk.errors import ConfigError
from deeptalk.evaluation.benchmarks.lm_harness import continuation_of
from deeptalk.evaluation.benchmarks.text_model import TextModel, text_backbone

try:
    from opencompass.models.base import BaseModel  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise ConfigError("this module is for OpenCompass: pip install opencompass.") from error


class DeepTalkModel(BaseModel):  # pyright: ignore[reportUntypedBaseClass]
    """Answers OpenCompass's requests; ``path`` is a folder or ``pocket``.

    ``backbone`` is the folder of a text model that takes the place of the model's own, as a baseline;
    ``stop_words`` end every generation. A prompt that is too long loses its beginning.
    """

    def __init__(
        self,
        path: str = "pocket",
        max_seq_len: int = 2048,
        tokenizer_only: bool = False,
        meta_template: Mapping[str, Any] | None = None,
        generation_kwargs: Mapping[str, Any] | None = None,
        sync_rank: bool = False,
        backbone: str | None = None,
        stop_words: Sequence[str] = (),
        device: str | None = None,
    ) -> None:
        super().__init__(
            path, max_seq_len, tokenizer_only, meta_template, dict(generation_kwargs or {}), sync_rank
        )
        loaded = load(path)
        if backbone is not None:
            loaded = text_backbone(loaded, Path(backbone))
        if device is not None:
            loaded.model.to(device)
        self._stop_words = tuple(stop_words)
        self._model = TextModel(loaded.engine, max_positions=max_seq_len)

    def generate(
        self,
        inputs: Sequence[str],
        max_out_len: int,
        min_out_len: int | None = None,
        stopping_criteria: Sequence[str] = (),
        **kwargs: Any,
    ) -> list[str]:
        """What is written behind each prompt, in order; ConfigError for settings that can't be done."""
        until = list(dict.fromkeys([*stopping_criteria, *self._stop_words]))
        settings = {**self.generation_kwargs, **kwargs, "min_out_len": min_out_len}
        how = continuation_of(settings | {"until": until, "max_gen_toks": max_out_len})
        return self._model.continue_texts([str(text) for text in inputs], how)

    def get_ppl(self, inputs: Sequence[str], mask_length: Sequence[int] | None = None) -> list[float]:
        """The loss of each text, as OpenCompass's own classes count it: over all its tokens, BOS with them.

        The first ``mask_length`` tokens are read, not scored, and don't count.
        """
        pairs, counts = [], []
        for text, masked in zip(inputs, mask_length or [0] * len(inputs), strict=True):
            ids = self._model.token_ids(str(text))
            lost = max(0, len(ids) - self.max_seq_len)
            known = max(1, masked - lost)
            pairs.append((ids[lost:][:known], ids[lost:][known:]))
            counts.append(max(1, len(ids) - max(masked, lost)))
        scores = self._model.score_ids(pairs)
        return [-score / count for (score, _), count in zip(scores, counts, strict=True)]

    def get_token_len(self, prompt: str) -> int:
        """How many tokens a prompt has, BOS with them."""
        return len(self._model.token_ids(str(prompt)))
