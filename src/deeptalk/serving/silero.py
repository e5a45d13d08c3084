"""Voice found by silero-vad, a small neural detector and its weights (``pip install 'deeptalk[vad]'``)."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from deeptalk.errors import ConfigError
from deeptalk.serving.detector import LoudVoice, Voice
from deeptalk.serving.turns import HEARD_RATE

Detector = Literal["auto", "energy", "silero"]

WINDOW = 512
"""Samples that it judges at a time."""

HYSTERESIS = 0.15
"""So far under the threshold voice goes on that has begun."""


class SileroVoice:
    """Voice is what the network takes for it, and loud besides where ``louder_db`` asks for that.

    All voices share the network, whose copies would cost 3 MB each; what it remembers is each voice's own.
    """

    late_frames = 10  # the first syllable of a voice it has not heard yet

    def __init__(self, network: Any, threshold: float) -> None:
        self._network = network
        self._remembered = torch.zeros(0), torch.zeros(0)  # state and context, as `reset_states` leaves them
        self._threshold = threshold
        self._loud = LoudVoice(threshold)
        self._waiting = np.zeros(0, dtype=np.float32)
        self._is_voice = False

    def is_voice(self, frame: np.ndarray, *, louder_db: float = 0.0) -> bool:
        """Judge one frame, by the last window that it completes or that came before."""
        is_loud = self._loud.is_voice(frame, louder_db=louder_db)
        self._waiting = np.concatenate([self._waiting, frame])
        while len(self._waiting) >= WINDOW:
            window, self._waiting = self._waiting[:WINDOW], self._waiting[WINDOW:]
            self._is_voice = self._probability(window) >= self._threshold - (
                HYSTERESIS if self._is_voice else 0.0
            )
        return self._is_voice and (is_loud or not louder_db)

    def _probability(self, window: np.ndarray) -> float:
        network = self._network
        network._state, network._context = self._remembered
        with torch.inference_mode():
            probability = float(network(torch.from_numpy(window), HEARD_RATE))
        self._remembered = network._state, network._context
        return probability


def detector_of(name: Detector) -> Callable[[float], Voice]:
    """What finds voice, made for a threshold; ``auto`` takes silero-vad where it is installed.

    Raises:
        ConfigError: silero-vad is asked for, and is missing or does not load.
    """
    if name == "energy":
        return LoudVoice
    num_threads = torch.get_num_threads()
    try:
        from silero_vad import load_silero_vad
    except (ImportError, OSError) as error:  # its torchaudio may be another torch's
        if name == "auto":
            return LoudVoice
        words = str(error).partition("\n")[0]
        raise ConfigError(f"silero-vad can't be used ({words}): pip install 'deeptalk[vad]'.") from error
    finally:
        torch.set_num_threads(num_threads)  # its import takes all but one away
    return partial(SileroVoice, load_silero_vad())
