"""What reports hold, as JSON Schemas, and the check that a report is made so.

Fields that don't apply are null; none is ever absent.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from deeptalk.errors import DataError

Schema = Mapping[str, Any]

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (Mapping,),
    "array": (list, tuple),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def of(*types: str) -> Schema:
    """A value of one of some types."""
    return {"type": list(types)}


def object_of(**properties: Schema) -> Schema:
    """An object with these fields and no others."""
    return {
        "type": ["object"],
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def list_of(items: Schema) -> Schema:
    """A list of such items."""
    return {"type": ["array"], "items": items}


def table_of(items: Schema) -> Schema:
    """An object of such values by names of any kind."""
    return {"type": ["object"], "additionalProperties": items}


TEXT, TEXT_OR_NULL = of("string"), of("string", "null")
_COUNT, NUMBER_OR_NULL = of("integer"), of("number", "null")
_TRUTH_OR_NULL = of("boolean", "null")
_MEASURED = {
    "value": NUMBER_OR_NULL,
    "unit": TEXT,
    "count": _COUNT,
    "total": _COUNT,
    "low": NUMBER_OR_NULL,
    "high": NUMBER_OR_NULL,
    "interval": TEXT_OR_NULL,
}

INTEGER_OR_NULL, OBJECT_OR_NULL = of("integer", "null"), of("object", "null")

OF_MODEL: Mapping[str, Schema] = {
    "name": TEXT_OR_NULL,
    "model": TEXT_OR_NULL,
    "weights": TEXT_OR_NULL,
    "stage": TEXT_OR_NULL,
    "preset": TEXT_OR_NULL,
    "trains": of("array", "null"),
    "fusion": TEXT_OR_NULL,
    "routing": TEXT_OR_NULL,
    "partition": TEXT_OR_NULL,
    "adapter_stride": INTEGER_OR_NULL,
    "codec": TEXT_OR_NULL,
    "deeptalk": TEXT_OR_NULL,
    "git": TEXT_OR_NULL,
    "device": TEXT_OR_NULL,
    "dtype": TEXT_OR_NULL,
    "batch_size": INTEGER_OR_NULL,
    "template": TEXT_OR_NULL,
    "template_hash": TEXT_OR_NULL,
    "rows": TEXT_OR_NULL,
    "decoding": of("string", "object", "null"),
    "seed": INTEGER_OR_NULL,
    "limits": OBJECT_OR_NULL,
}
"""What every report tells of the model, of the code and the machine, and of how the model was asked.

``name`` to ``codec`` are of the weights (``weights``: trained, partly random or random, as far as the folder
tells; ``trains``: what the last stage moved), ``deeptalk`` to
``batch_size`` of what computed, ``template`` to ``limits`` of how it was asked: ``rows`` is T for text alone,
T S with speech; ``decoding`` is greedy, or how codes were drawn with ``seed``.
"""

RUN: Schema = object_of(
    **OF_MODEL,
    **{"mode": TEXT, "from": TEXT_OR_NULL, "text": TEXT_OR_NULL, "longest_seconds": NUMBER_OR_NULL},
)
"""Of a run's own record, ``run.json``."""

_OF_POCKET: Mapping[str, Schema] = {
    **OF_MODEL,
    "questions": TEXT_OR_NULL,
    "split": TEXT_OR_NULL,
    "voice": TEXT_OR_NULL,
    "limit": INTEGER_OR_NULL,
    "judges": OBJECT_OR_NULL,
    "backbone": TEXT_OR_NULL,
    "backbone_score": NUMBER_OR_NULL,
}

SCHEMA: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **object_of(
        kind=TEXT,
        format=_COUNT,
        results=TEXT,
        about=object_of(**_OF_POCKET),
        protocol=object_of(scorer=TEXT, normalizer=TEXT, decoding=TEXT, rule=TEXT),
        num_runaway=_COUNT,
        not_run=list_of(TEXT),
        figures=list_of(
            object_of(
                name=TEXT,
                title=TEXT,
                **_MEASURED,
                must=NUMBER_OR_NULL,
                goal=NUMBER_OR_NULL,
                at_most=_TRUTH_OR_NULL,
                is_met=_TRUTH_OR_NULL,
            )
        ),
        breakdowns=list_of(
            object_of(
                row=TEXT,
                cells=list_of(object_of(category=TEXT_OR_NULL, voice=TEXT_OR_NULL, **_MEASURED)),
            )
        ),
        confusions=list_of(
            object_of(
                row=TEXT,
                by=TEXT,
                columns=list_of(TEXT),
                lines=list_of(object_of(label=TEXT, counts=list_of(_COUNT))),
            )
        ),
        errors=list_of(
            object_of(
                row=TEXT,
                id=TEXT,
                category=TEXT,
                voice=TEXT,
                question=TEXT,
                answer=TEXT,
                given=TEXT,
                taken_for=TEXT_OR_NULL,
            )
        ),
        stages=list_of(object_of(name=TEXT, **_MEASURED)),
        samples=list_of(TEXT),
    ),
}
"""Of the pocket model's full report; `jsonschema` and its like read it too."""

_SCORE = object_of(
    value=NUMBER_OR_NULL, unit=TEXT, count=_COUNT, total=_COUNT, low=NUMBER_OR_NULL, high=NUMBER_OR_NULL
)
_ABOUT = object_of(
    set=TEXT,
    split=TEXT_OR_NULL,
    field=TEXT,
    row=TEXT_OR_NULL,
    run=OBJECT_OR_NULL,
    recogniser=OBJECT_OR_NULL,
    rtfx=NUMBER_OR_NULL,
    num_runaway=INTEGER_OR_NULL,
    shrunk_from=INTEGER_OR_NULL,
    scorer=TEXT,
    git=TEXT_OR_NULL,
)

SCORED: Schema = object_of(
    kind=TEXT,
    data=TEXT,
    rules=table_of(TEXT),
    scores=table_of(_SCORE),
    num_items=_COUNT,
    num_missing=_COUNT,
    num_unjudged=_COUNT,
    errors=OBJECT_OR_NULL,
    about=_ABOUT,
)
"""Of answers, transcripts or speech that were scored, without its items."""

RESULTS: Schema = object_of(
    scores=table_of(_SCORE),
    num_runaway=_COUNT,
    not_run=list_of(TEXT),
    median_bounds=TEXT,
    about=object_of(**_OF_POCKET),
    items=list_of(of("object")),
)
"""Of what `eval pocket --out` writes."""

TEXT_DROP: Schema = object_of(
    kind=TEXT,
    points=of("number"),
    of_means=NUMBER_OR_NULL,
    mean_of_task_drops=NUMBER_OR_NULL,
    num_tasks=_COUNT,
    num_missing=_COUNT,
    num_runaway=object_of(model=INTEGER_OR_NULL, backbone=INTEGER_OR_NULL),
    engine=object_of(
        scorer=TEXT,
        version=TEXT,
        git=TEXT_OR_NULL,
        data=TEXT_OR_NULL,
        split=TEXT_OR_NULL,
        normalizer=TEXT_OR_NULL,
        template=TEXT,
        template_hash=TEXT,
    ),
    limit=INTEGER_OR_NULL,
    about=object_of(**OF_MODEL),
    backbone=TEXT,
    is_own_backbone=_TRUTH_OR_NULL,
    tasks=list_of(
        object_of(
            task=TEXT,
            model=_SCORE,
            backbone=_SCORE,
            difference=of("number"),
            low=of("number"),
            high=of("number"),
            is_clear=of("boolean"),
            items=object_of(model=list_of(of("number")), backbone=list_of(of("number"))),
        )
    ),
)
"""Of `eval text`."""

_TIMES = object_of(n=_COUNT, **dict.fromkeys(("p50", "p95", "p99", "mean", "low", "high"), NUMBER_OR_NULL))

LATENCY: Schema = object_of(
    kind=TEXT,
    about=object_of(
        **OF_MODEL,
        questions=TEXT_OR_NULL,
        split=TEXT_OR_NULL,
        threads=_COUNT,
        torch=TEXT,
        encoder_mode=TEXT,
        frames_of_first_chunk=_COUNT,
        frames_of_a_chunk=_COUNT,
        turns=_COUNT,
        graphs=of("boolean"),
    ),
    excluded=TEXT,
    engine=object_of(
        first_chunk_ms=_TIMES,
        cold_first_chunk_ms=NUMBER_OR_NULL,
        split_ms=table_of(_TIMES),
        steps_to_first_chunk=INTEGER_OR_NULL,
        step_ms=table_of(_TIMES),
        real_time_factor=_TIMES,
        question_seconds=object_of(shortest=of("number"), longest=of("number")),
        num_failed=_COUNT,
    ),
    served=list_of(
        object_of(
            sessions=_COUNT,
            turns_by=TEXT,
            first_audio_ms=_TIMES,
            server_first_audio_mean_ms=NUMBER_OR_NULL,
            server_first_audio_ms={**_TIMES, "type": ["object", "null"]},
            network_ms=NUMBER_OR_NULL,
            viability=NUMBER_OR_NULL,
            underruns_per_minute=NUMBER_OR_NULL,
            num_failed=_COUNT,
            included=TEXT,
            hurried=of("boolean"),
        )
    ),
    paper=table_of(of("number")),
    rows=list_of(
        object_of(figure=TEXT, unit=TEXT, paper=of("number"), ours=NUMBER_OR_NULL, difference=NUMBER_OR_NULL)
    ),
    num_failed=_COUNT,
    busy_cores=list_of(NUMBER_OR_NULL),
    valid=of("boolean"),
)
"""Of `eval latency`."""

DUPLEX: Schema = object_of(
    kind=TEXT,
    task=TEXT,
    is_full_duplex=of("boolean"),
    goal=TEXT,
    data=TEXT,
    take_over=_SCORE,
    latency=OBJECT_OR_NULL,
    stop_latency=OBJECT_OR_NULL,
    response_latency=OBJECT_OR_NULL,
    relevance=OBJECT_OR_NULL,
    detector=TEXT_OR_NULL,
    num_missing=_COUNT,
    num_items=_COUNT,
    about=object_of(set=TEXT, split=TEXT_OR_NULL, run=OBJECT_OR_NULL, scorer=TEXT, git=TEXT_OR_NULL),
)
"""Of `eval score-duplex`."""

SUITE: Schema = object_of(
    kind=TEXT,
    format=_COUNT,
    suite=TEXT,
    about=object_of(**OF_MODEL, limit=INTEGER_OR_NULL),
    rows=list_of(
        object_of(
            table=TEXT,
            set=TEXT,
            figure=TEXT,
            unit=TEXT,
            less_is_better=of("boolean"),
            paper=of("number"),
            ours=NUMBER_OR_NULL,
            difference=NUMBER_OR_NULL,
            count=of("integer", "null"),
            total=of("integer", "null"),
            low=NUMBER_OR_NULL,
            high=NUMBER_OR_NULL,
            num_missing=of("integer", "null"),
            about=of("object", "null"),
            not_run=TEXT_OR_NULL,
        )
    ),
    extra=of("object"),
    num_failed=_COUNT,
)
"""Of the paper's tables."""


def check_report(value: Any, schema: Schema = SCHEMA, *, place: str = "report") -> None:
    """DataError where a value is not what the schema says; the text names the place."""
    is_number_like_bool = isinstance(value, bool) and "boolean" not in schema["type"]
    if is_number_like_bool or not any(isinstance(value, _TYPES[name]) for name in schema["type"]):
        raise DataError(f"{place} must be {' or '.join(schema['type'])}, got {value!r}.")
    if isinstance(value, Mapping) and "properties" in schema:
        if apart := sorted(value.keys() ^ schema["properties"].keys()):
            raise DataError(f"{place} lacks, or should not have: {', '.join(apart)}.")
        for name, inner in schema["properties"].items():
            check_report(value[name], inner, place=f"{place}.{name}")
    others = schema.get("additionalProperties")
    if isinstance(value, Mapping) and isinstance(others, Mapping):
        for name, inner in value.items():
            check_report(inner, others, place=f"{place}.{name}")
    if isinstance(value, Sequence) and "items" in schema:
        for number, item in enumerate(value):
            check_report(item, schema["items"], place=f"{place}[{number}]")
