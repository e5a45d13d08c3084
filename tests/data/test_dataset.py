import json
from dataclasses import fields

import torch

from deeptalk.streams import Batch


def _equal(a: Batch, b: Batch) -> bool:
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in fields(Batch)]
    return all(x is None and y is None if x is None or y is None else torch.equal(x, y) for x, y in pairs)


def test_a_resumed_stream_gives_the_batches_of_an_uninterrupted_one(batches) -> None:
    whole = batches()
    for _ in range(7):
        next(whole)
    resumed = batches()
    resumed.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    assert all(_equal(next(whole), next(resumed)) for _ in range(12))


def test_seeds_differ_and_batches_hold_speech_and_both_rows(batches) -> None:
    assert not _equal(next(batches()), next(batches(seed=4)))
    seen = [batch for batch, _ in zip(batches(), range(10), strict=False)]
    assert {int(row) for batch in seen for row in batch.row} == {0, 1}
    assert any(batch.mel is not None and len(batch.speech_lengths) for batch in seen)


def test_batches_keep_to_their_budget(batches) -> None:
    sizes = [
        batch.grid.shape[0] * batch.grid.shape[2] for batch, _ in zip(batches(), range(20), strict=False)
    ]
    assert max(sizes) < 2 * 600
    assert max(batch.grid.shape[0] for batch, _ in zip(batches(), range(20), strict=False)) > 1


def test_long_samples_are_dropped_and_counted(batches, context) -> None:
    stream = batches()
    stream.context = type(context)(
        **{f.name: getattr(context, f.name) for f in fields(type(context))} | {"max_positions": 70}
    )
    for _ in range(10):
        assert next(stream).grid.shape[2] <= 70
    assert stream.rejects["too long"] > 0
