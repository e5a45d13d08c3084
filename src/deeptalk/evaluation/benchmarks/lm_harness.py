"""The model class `deeptalk` of lm-evaluation-harness, which runs the text benchmarks of table 3.

The harness is an extra, ``deeptalk[lm-eval]``, imported only when the class is made. It does not look for
classes of others, so its command line is started from here::

    python -m deeptalk.evaluation.benchmarks.lm_harness --model deeptalk --model_args model=DIR --tasks mmlu
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from deeptalk.errors import ConfigError
from deeptalk.evaluation.benchmarks.text_model import Continuation, TextModel

_TOKEN_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


def continuation_of(settings: Mapping[str, Any]) -> Continuation:
    """What the harness's generation settings ask for; ConfigError for what can't be done, such as beams."""
    known = {"until", "do_sample", "temperature", *_TOKEN_LIMITS}
    if unknown := sorted(name for name in settings if name not in known and settings[name] is not None):
        raise ConfigError(f"the model class deeptalk can't generate with {', '.join(unknown)}.")
    until = settings.get("until") or ()
    until = (until,) if isinstance(until, str) else tuple(end for end in until if end)
    limits = [settings[name] for name in _TOKEN_LIMITS if settings.get(name) is not None]
    temperature = settings.get("temperature")
    is_sampled = settings.get("do_sample", bool(temperature))
    if is_sampled:
        temperature = 1.0 if temperature is None else float(temperature)
    return Continuation(
        until=until,
        max_tokens=int(limits[0]) if limits else Continuation().max_tokens,
        temperature=float(temperature or 0.0) if is_sampled else 0.0,
    )


def continue_all(model: TextModel, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Continuations of contexts with settings of their own, in the order of the requests."""
    groups: defaultdict[Continuation, list[int]] = defaultdict(list)
    for number, (_, settings) in enumerate(requests):
        groups[continuation_of(settings)].append(number)
    texts = [""] * len(requests)
    for how, numbers in groups.items():
        found = model.continue_texts([requests[i][0] for i in numbers], how)
        for i, text in zip(numbers, found, strict=True):
            texts[i] = text
    return texts


@cache
def register() -> type[Any]:
    """Make the class and enter it in the harness's registry as ``deeptalk``.

    Raises:
        ConfigError: the harness is not installed.
    """
    try:
        from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]
        from lm_eval.api.registry import register_model  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            "text benchmarks need lm-evaluation-harness: pip install 'deeptalk[lm-eval]'."
        ) from error

    @register_model("deeptalk")
    class HarnessModel(LM):
        """Answers the harness's requests; ``model`` is a folder or ``pocket``, batch size ``auto`` is 8."""

        def __init__(
            self,
            model: str = "pocket",
            batch_size: int | str = 8,
            max_length: int | None = None,
            device: str | None = None,
            **_: object,  # the harness passes max_batch_size and more
        ) -> None:
            from deeptalk.decoding import DecodingEngine, load

            super().__init__()
            talker = load(model).model
            if device is not None:
                talker.to(device)
            size = int(batch_size) if str(batch_size).isdecimal() else 8
            self.name = model
            self.text_model = TextModel(DecodingEngine(talker), batch_size=size, max_positions=max_length)

        @property
        def tokenizer_name(self) -> str:
            """What tells the harness's caches of requests apart."""
            return f"deeptalk {self.name}"

        def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> Any:
            """Log-probability of each continuation and whether it is the greedy one."""
            return self.text_model.log_likelihoods([request.args for request in requests])

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> Any:
            """Log-probability of each text."""
            return self.text_model.rolling_log_likelihoods([request.args[0] for request in requests])

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> Any:
            """What is written behind each context."""
            return continue_all(self.text_model, [request.args for request in requests])

    return HarnessModel


def main() -> None:
    """The harness's command line, with the class registered."""
    register()
    from lm_eval.__main__ import cli_evaluate  # pyright: ignore[reportMissingImports]

    cli_evaluate()


if __name__ == "__main__":
    main()
