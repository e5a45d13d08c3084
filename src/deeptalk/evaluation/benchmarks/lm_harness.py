"""The model class `deeptalk` of lm-evaluation-harness, which runs the text benchmarks of table 3.

The harness is an extra, ``deeptalk[lm-eval]``, imported only when the class is made. It does not look for
classes of others, so its command line is started from here::

    python -m deeptalk.evaluation.benchmarks.lm_harness --model deeptalk --model_args model=DIR --tasks mmlu
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from os import environ
from pathlib import Path
from typing import Any

from deeptalk.errors import ConfigError, DataError
from deeptalk.evaluation.benchmarks.chat_text import chat_text
from deeptalk.evaluation.benchmarks.text_model import Continuation, TextModel, text_backbone

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


_registered: list[type[Any]] = []
"""The class, once it is made."""


def register() -> type[Any]:
    """Make the class, once, and enter it in the harness's registry as ``deeptalk``.

    Raises:
        ConfigError: the harness is not installed.
    """
    if _registered:
        return _registered[0]
    try:
        from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]
        from lm_eval.api.registry import register_model  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            "text benchmarks need lm-evaluation-harness: pip install 'deeptalk[lm-eval]'."
        ) from error

    @register_model("deeptalk")
    class HarnessModel(LM):
        """Answers the harness's requests; ``model`` is a folder, ``pocket`` or opened; batch ``auto`` is 8.

        ``backbone`` is the folder of a text model that takes the place of the model's own, as a baseline.
        """

        def __init__(
            self,
            model: str | TextModel = "pocket",
            batch_size: int | str = 8,
            max_length: int | None = None,
            device: str | None = None,
            backbone: str | None = None,
            **_: object,  # the harness passes max_batch_size and more
        ) -> None:
            from deeptalk.decoding import DecodingEngine, load

            super().__init__()
            if isinstance(model, TextModel):
                self.name, self.text_model = "opened", model
                return
            loaded = load(model)
            if backbone is not None:
                loaded = text_backbone(loaded, Path(backbone))
            talker = loaded.model
            if device is not None and _is_here(device):
                talker.to(device)
            size = int(batch_size) if str(batch_size).isdecimal() else 8
            self.name = model if backbone is None else f"{model} on {backbone}"
            self.text_model = TextModel(DecodingEngine(talker), batch_size=size, max_positions=max_length)

        @property
        def tokenizer_name(self) -> str:
            """What tells the harness's caches of requests apart."""
            return f"deeptalk {self.name} {self.text_model.template.digest}"

        def apply_chat_template(
            self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
        ) -> str:
            """Messages in the model's own template, as in dialogue; a baseline has the same."""
            return chat_text(chat_history, self.text_model.template, opens_answer=bool(add_generation_prompt))

        def chat_template(self, chat_template: bool | str = False) -> str:
            """The template for the harness's record; there is one, whatever is asked for."""
            return json.dumps(asdict(self.text_model.template), ensure_ascii=False)

        def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> Any:
            """Log-probability of each continuation and whether it is the greedy one."""
            return self.text_model.log_likelihoods([request.args for request in requests])

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> Any:
            """Log-probability of each text."""
            return self.text_model.rolling_log_likelihoods([request.args[0] for request in requests])

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> Any:
            """What is written behind each context."""
            return continue_all(self.text_model, [request.args for request in requests])

    _registered.append(HarnessModel)
    return HarnessModel


def _is_here(device: str) -> bool:
    """False for a GPU where there is none: the harness's command line asks for cuda:0 of itself."""
    from torch.cuda import is_available

    return not device.startswith("cuda") or is_available()


def run_tasks(
    model: TextModel,
    tasks: Sequence[str],
    *,
    folder: Path | None = None,
    limit: int | None = None,
    cache: Path | None = None,
    runs_code: bool = False,
    is_chat: bool = False,
) -> dict[str, list[float]]:
    """By task and metric (``TASK/METRIC``, with the harness's filter if it has a name) every item's score.

    Args:
        model: what is asked.
        tasks: names of the harness; of a group every task of it is here.
        folder: where tasks of one's own are.
        limit: the first items of every task only.
        cache: a file to keep answers in, so that a run that was stopped goes on; of one model and one
            ``max_positions`` only, since the harness knows an answer by its request alone.
        runs_code: whether tasks may run what the model writes (HumanEval, MBPP), as the harness does: in
            processes of their own with a time limit, not in a sandbox.
        is_chat: whether questions are turns of a dialogue, examples being earlier turns; else raw text.

    Raises:
        ConfigError: the harness is not installed, or knows no such task.
        DataError: the data of a task can't be had.
    """
    made = register()
    from lm_eval.evaluator import simple_evaluate  # pyright: ignore[reportMissingImports]
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    manager = TaskManager(include_path=None if folder is None else str(folder))
    if unknown := [name for name in tasks if name not in manager.all_tasks]:
        raise ConfigError(
            f"lm-evaluation-harness has no task {', '.join(unknown)}; `lm-eval ls tasks` lists all."
        )
    if runs_code:
        environ["HF_ALLOW_CODE_EVAL"] = "1"  # the metric asks once more
    try:
        found: Any = simple_evaluate(
            model=made(model),
            tasks=list(tasks),
            limit=limit,
            use_cache=None if cache is None else str(cache),
            bootstrap_iters=0,
            task_manager=manager,
            confirm_run_unsafe_code=runs_code,
            apply_chat_template=is_chat,
            fewshot_as_multiturn=is_chat,
        )
    except (OSError, ValueError, ImportError) as error:  # what `datasets` raises for data that is not here
        reason = (str(error) or repr(error)).splitlines()[0]
        raise DataError(f"the tasks {', '.join(tasks)} can't be run: {reason}") from error
    return {
        name: scores for task, of_one in found["samples"].items() for name, scores in _scores(task, of_one)
    }


def harness_version() -> str:
    """The release of the harness that is installed."""
    return version("lm_eval")


def _scores(task: str, samples: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[float]]]:
    """Metrics that every item has as one number; others, such as perplexities, are of the whole."""
    by_filter: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for sample in samples:
        by_filter[sample["filter"]].append(sample)
    for name, of_one in by_filter.items():
        of_one.sort(key=lambda sample: sample["doc_id"])
        for metric in of_one[0]["metrics"]:
            values = [sample[metric] for sample in of_one]
            if all(isinstance(value, int | float) for value in values):
                suffix = "" if name == "none" else f",{name}"
                yield f"{task}/{metric}{suffix}", [float(value) for value in values]


def main() -> None:
    """The harness's command line, with the class registered."""
    register()
    from lm_eval.__main__ import cli_evaluate  # pyright: ignore[reportMissingImports]

    cli_evaluate()


if __name__ == "__main__":
    main()
