"""Which replica a request goes to; read by Ray Serve's proxies."""

# pyright: reportMissingImports=false

from collections.abc import Sequence
from typing import Any

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter


class FreeSlotsRouter(ConsistentHashRouter):
    """A session that is named goes where it went before, by its hash; others where most slots are free.

    Replicas report their free slots from time to time; what was sent to one since then counts as taken.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._since: dict[Any, tuple[Any, set[str]]] = {}

    async def choose_replicas(
        self, candidate_replicas: Sequence[Any], pending_request: Any | None = None
    ) -> list[list[Any]]:
        """The replicas to ask, one after the other."""
        metadata = None if pending_request is None else pending_request.metadata
        if metadata is None or metadata.session_id or not candidate_replicas:
            return await super().choose_replicas(list(candidate_replicas), pending_request)
        pending_request.routing_context.should_backoff = True  # pyright: ignore[reportOptionalMemberAccess]
        ranked = sorted(candidate_replicas, key=self._free_slots, reverse=True)
        self._sent_to(ranked[0]).add(metadata.internal_request_id)
        return [[replica] for replica in ranked]

    def _free_slots(self, replica: Any) -> float:
        return replica.routing_stats.get("free_slots", 0) - len(self._sent_to(replica))

    def _sent_to(self, replica: Any) -> set[str]:
        """The requests that were sent to a replica since its last report."""
        reported, sent = replica.routing_stats.get("at"), set[str]()
        if replica.replica_id in self._since and self._since[replica.replica_id][0] == reported:
            return self._since[replica.replica_id][1]
        self._since[replica.replica_id] = (reported, sent)
        return sent
