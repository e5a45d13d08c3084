from collections.abc import Callable

import pytest
import torch

from deeptalk.experts import ExpertLoad


@pytest.fixture
def answer_load() -> Callable[..., ExpertLoad]:
    """One layer of answers: from choices of each expert by audio and by text tokens."""

    def make(
        audio: list[int], text: list[int], *, num_tokens: int, even: ExpertLoad | None = None
    ) -> ExpertLoad:
        count = torch.zeros(2, 1, 4, len(audio), dtype=torch.long)
        count[0, 0, 3], count[1, 0, 3] = torch.tensor(audio), torch.tensor(text)
        tokens = torch.zeros(2, 1, 4, dtype=torch.long)
        tokens[:, :, 3] = num_tokens
        return ExpertLoad(count=count, mass=count.double() / 2, num_tokens=tokens, even=even)

    return make
