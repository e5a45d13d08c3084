"""What `report.json` holds, as a JSON Schema, and the check that a report is made so.

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


def _of(*types: str) -> Schema:
    return {"type": list(types)}


def _object(**properties: Schema) -> Schema:
    return {
        "type": ["object"],
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _list(items: Schema) -> Schema:
    return {"type": ["array"], "items": items}


_TEXT, _TEXT_OR_NULL = _of("string"), _of("string", "null")
_COUNT, _NUMBER_OR_NULL = _of("integer"), _of("number", "null")
_TRUTH_OR_NULL = _of("boolean", "null")
_MEASURED = {
    "value": _NUMBER_OR_NULL,
    "unit": _TEXT,
    "count": _COUNT,
    "total": _COUNT,
    "low": _NUMBER_OR_NULL,
    "high": _NUMBER_OR_NULL,
    "interval": _TEXT_OR_NULL,
}

SCHEMA: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **_object(
        kind=_TEXT,
        format=_COUNT,
        results=_TEXT,
        about=_object(
            model=_TEXT_OR_NULL,
            fusion=_TEXT_OR_NULL,
            adapter_stride=_of("integer", "null"),
            codec=_TEXT_OR_NULL,
            deeptalk=_TEXT_OR_NULL,
            questions=_TEXT_OR_NULL,
            voice=_TEXT_OR_NULL,
            limit=_of("integer", "null"),
            judges=_of("object", "null"),
        ),
        protocol=_object(scorer=_TEXT, normalizer=_TEXT, decoding=_TEXT, rule=_TEXT),
        num_runaway=_COUNT,
        not_run=_list(_TEXT),
        figures=_list(
            _object(
                name=_TEXT,
                title=_TEXT,
                **_MEASURED,
                must=_NUMBER_OR_NULL,
                goal=_NUMBER_OR_NULL,
                at_most=_TRUTH_OR_NULL,
                is_met=_TRUTH_OR_NULL,
            )
        ),
        breakdowns=_list(
            _object(
                row=_TEXT,
                cells=_list(_object(category=_TEXT_OR_NULL, voice=_TEXT_OR_NULL, **_MEASURED)),
            )
        ),
        confusions=_list(
            _object(
                row=_TEXT,
                by=_TEXT,
                columns=_list(_TEXT),
                lines=_list(_object(label=_TEXT, counts=_list(_COUNT))),
            )
        ),
        errors=_list(
            _object(
                row=_TEXT,
                id=_TEXT,
                category=_TEXT,
                voice=_TEXT,
                question=_TEXT,
                answer=_TEXT,
                given=_TEXT,
                taken_for=_TEXT_OR_NULL,
            )
        ),
        stages=_list(_object(name=_TEXT, **_MEASURED)),
        samples=_list(_TEXT),
    ),
}
"""The schema; `jsonschema` and its like read it too."""


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
    if isinstance(value, Sequence) and "items" in schema:
        for number, item in enumerate(value):
            check_report(item, schema["items"], place=f"{place}[{number}]")
