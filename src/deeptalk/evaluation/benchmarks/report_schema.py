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

SCHEMA: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **object_of(
        kind=TEXT,
        format=_COUNT,
        results=TEXT,
        about=object_of(
            model=TEXT_OR_NULL,
            stage=TEXT_OR_NULL,
            fusion=TEXT_OR_NULL,
            routing=TEXT_OR_NULL,
            partition=TEXT_OR_NULL,
            dtype=TEXT_OR_NULL,
            adapter_stride=of("integer", "null"),
            codec=TEXT_OR_NULL,
            deeptalk=TEXT_OR_NULL,
            questions=TEXT_OR_NULL,
            voice=TEXT_OR_NULL,
            limit=of("integer", "null"),
            judges=of("object", "null"),
            backbone=TEXT_OR_NULL,
        ),
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
    field=TEXT,
    run=of("object", "null"),
    recogniser=of("object", "null"),
    rtfx=NUMBER_OR_NULL,
    num_runaway=of("integer", "null"),
    shrunk_from=of("integer", "null"),
    scorer=TEXT,
)

SCORED: Schema = object_of(
    kind=TEXT,
    data=TEXT,
    rules=table_of(TEXT),
    scores=table_of(_SCORE),
    num_items=_COUNT,
    num_missing=_COUNT,
    num_unjudged=_COUNT,
    errors=of("object", "null"),
    about=_ABOUT,
)
"""Of answers or transcripts that were scored, without its items."""

SUITE: Schema = object_of(
    kind=TEXT,
    format=_COUNT,
    suite=TEXT,
    about=of("object"),
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
