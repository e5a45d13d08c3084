"""Which replica a request goes to; read by Ray Serve's proxies."""

# pyright: reportMissingImports=false

import time
from collections.abc import Sequence
from typing import Any

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

ON_THE_WAY_SECONDS = 0.1
"""A request that was sent so shortly before a report may not be in it."""


class FreeSlotsRouter(ConsistentHashRouter):
    """A session that is named goes where it went before, by its hash; others where most slots are free.

    Replicas report their free slots from time to time, and a report is on its way for a while: what was sent
    to a replica since its report was made counts as taken.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sent: dict[Any, dict[str, float]] = {}

    async def choose_replicas(
        self, candidate_replicas: Sequence[Any], pending_request: Any | None = None
    ) -> list[list[Any]]:
        """The replicas to ask, one after the other."""
        metadata = None if pending_request is None else pending_request.metadata
        if metadata is None or metadata.session_id or not candidate_replicas:
            return await super().choose_replicas(list(candidate_replicas), pending_request)
        pending_request.routing_context.should_backoff = True  # pyright: ignore[reportOptionalMemberAccess]
        ranked = sorted(candidate_replicas, key=self._free_slots, reverse=True)
        self._sent[ranked[0].replica_id][metadata.internal_request_id] = time.time()
        return [[replica] for replica in ranked]

    def _free_slots(self, replica: Any) -> float:
        told = replica.routing_stats
        since = told.get("at", 0.0) - ON_THE_WAY_SECONDS
        sent = self._sent.get(replica.replica_id, {})
        self._sent[replica.replica_id] = {name: at for name, at in sent.items() if at >= since}
        return told.get("free_slots", 0) - len(self._sent[replica.replica_id])
