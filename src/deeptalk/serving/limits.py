"""How much a client may use: every buffer that can grow with what people do is bounded here."""

from dataclasses import dataclass, fields

from deeptalk.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerLimits:
    """Bounds of the server; seconds are seconds of sound unless a name says otherwise.

    ``out_high`` and ``out_low`` are the levels of unsent sound at which a session's answer pauses and goes
    on; one with ``lead_seconds`` of sound that can't have been played yet waits for those with less.
    ``stalled_seconds`` of wall time without any progress close a session that does not read, and a
    connection has ``handshake_seconds`` for the head of a request; one that answers no ping within
    ``ping_seconds`` of it is taken for gone, and is asked as often. Of a conversation that is longer than
    ``context_positions`` the model reads the last turns.
    """

    max_sessions: int = 2
    max_sessions_per_key: int = 2**20
    max_waiting: int = 4
    waiting_seconds: float = 10.0
    utterance_seconds: float = 30.0
    answer_seconds: float = 120.0
    unheard_seconds: float = 5.0
    out_high: float = 8.0
    out_low: float = 4.0
    lead_seconds: float = 15.0
    stalled_seconds: float = 20.0
    handshake_seconds: float = 10.0
    ping_seconds: float = 20.0
    session_seconds: float = 3600.0
    idle_seconds: float = 600.0
    drain_seconds: float = 30.0
    context_positions: int = 2**20
    max_items: int = 256
    max_instructions: int = 8192
    max_message_bytes: int = 16 * 2**20
    max_body_bytes: int = 25 * 2**20
    max_commands: int = 256
    encoded_per_tick: float = 1.0
    positions_per_tick: int = 128

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise ConfigError(f"{field.name} must be above 0, got {getattr(self, field.name)}.")
        if self.out_low >= self.out_high:
            raise ConfigError(f"out_low must be below out_high, got {self.out_low} and {self.out_high}.")
