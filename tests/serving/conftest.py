"""A random model behind the model thread, ticked by hand or running."""

from collections.abc import Iterator

import pytest
from random_model import random_model

from deeptalk.decoding import LoadedModel
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.model_thread import ModelThread

LIMITS = ServerLimits(answer_seconds=0.8, positions_per_tick=7, encoded_per_tick=0.2)


@pytest.fixture(scope="session")
def loaded() -> LoadedModel:
    return random_model()


@pytest.fixture
def still(loaded: LoadedModel) -> ModelThread:
    """A model thread that a test ticks by hand."""
    return ModelThread(loaded, limits=LIMITS)


@pytest.fixture(scope="session")
def thread(loaded: LoadedModel) -> Iterator[ModelThread]:
    """A model thread that runs."""
    thread = ModelThread(loaded, limits=LIMITS)
    thread.start()
    yield thread
    thread.stop()
