"""What is counted and measured, in the text format of Prometheus; no content, no label that names anybody."""

import asyncio
import os
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Literal

import torch

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATUSES = ("completed", "cancelled", "incomplete", "failed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One name: what it means; a counter may have one ``label``, a histogram has the ends of its buckets."""

    kind: Literal["counter", "gauge", "histogram"]
    text: str
    label: str = ""
    buckets: tuple[float, ...] = ()


METRICS: Mapping[str, Metric] = {
    "deeptalk_sessions_active": Metric(kind="gauge", text="Sessions and HTTP answers that hold a slot."),
    "deeptalk_sessions_limit": Metric(kind="gauge", text="Slots."),
    "deeptalk_rejects_total": Metric(kind="counter", text="Who was not let in, and why.", label="reason"),
    "deeptalk_turns_total": Metric(kind="counter", text="Answers by how they ended.", label="status"),
    "deeptalk_server_ttfa_seconds": Metric(
        kind="histogram",
        text="From asking the model for an answer to handing over its first sound.",
        buckets=(0.1, 0.2, 0.34, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0),
    ),
    "deeptalk_step_seconds": Metric(
        kind="histogram",
        text="One step of all running answers.",
        buckets=(0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28),
    ),
    "deeptalk_batch_rows": Metric(
        kind="histogram", text="Answers in one step.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
    ),
    "deeptalk_prefill_positions_total": Metric(kind="counter", text="Positions of conversations read."),
    "deeptalk_cache_positions_used": Metric(
        kind="gauge", text="Positions in the caches of the conversations that are open."
    ),
    "deeptalk_cache_positions_limit": Metric(kind="gauge", text="The model's positions times the slots."),
    "deeptalk_out_queue_seconds": Metric(
        kind="gauge", text="Sound that was made and is not fetched, of the answer that has most of it."
    ),
    "deeptalk_underruns_total": Metric(
        kind="counter", text="Times that sound of an answer left after all before it had been played."
    ),
    "deeptalk_backchannels_ignored_total": Metric(
        kind="counter", text="Brief sounds of users over an answer that went on."
    ),
    "deeptalk_barge_ins_total": Metric(kind="counter", text="Answers that users have interrupted by voice."),
    "deeptalk_engine_faults_total": Metric(kind="counter", text="Answers that an error of ours has ended."),
    "deeptalk_gpu_bytes": Metric(kind="gauge", text="Memory of the accelerator in use by tensors."),
    "deeptalk_tasks": Metric(kind="gauge", text="Tasks of the event loop."),
    "deeptalk_build_info": Metric(kind="gauge", text="The version that runs.", label="version"),
    "process_resident_memory_bytes": Metric(kind="gauge", text="Memory of the process."),
    "process_open_fds": Metric(kind="gauge", text="Open files and sockets."),
}
"""All that ``/metrics`` tells, in this order."""


class Metrics:
    """Counters and histograms of one server, for any thread. Names are those of ``METRICS``."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: dict[str, dict[str, float]] = {
            name: {} if metric.label else {"": 0} for name, metric in METRICS.items()
        }
        self._counts["deeptalk_turns_total"] = dict.fromkeys(STATUSES, 0)
        self._observed = {
            name: [0] * (len(metric.buckets) + 1)
            for name, metric in METRICS.items()
            if metric.kind == "histogram"
        }
        self._sums = dict.fromkeys(self._observed, 0.0)

    def count(self, name: str, label: str = "", *, by: int = 1) -> None:
        """Add to a counter, under a label where it has one."""
        assert METRICS[name].kind == "counter"
        with self._lock:
            counts = self._counts[name]
            counts[label] = counts.get(label, 0) + by

    def observe(self, name: str, value: float) -> None:
        """Add a value to a histogram."""
        with self._lock:
            self._observed[name][bisect_left(METRICS[name].buckets, value)] += 1
            self._sums[name] += value

    def total(self, name: str) -> float:
        """A counter, all its labels together."""
        with self._lock:
            return sum(self._counts[name].values())

    def render(self, gauges: Mapping[str, float]) -> str:
        """Everything as text; a gauge that is not given is left out."""
        with self._lock:
            lines = [line for name, metric in METRICS.items() for line in self._lines(name, metric, gauges)]
        return "\n".join(lines) + "\n"

    def _lines(self, name: str, metric: Metric, gauges: Mapping[str, float]) -> list[str]:
        if metric.kind == "histogram":
            samples = self._histogram(name, metric)
        elif metric.kind == "counter":
            samples = [_sample(name, metric.label, *each) for each in self._counts[name].items()]
        elif name == "deeptalk_build_info":
            samples = [_sample(name, metric.label, version("deeptalk"), 1)]
        else:
            samples = [_sample(name, "", "", gauges[name])] if name in gauges else []
        return [f"# HELP {name} {metric.text}", f"# TYPE {name} {metric.kind}", *samples] if samples else []

    def _histogram(self, name: str, metric: Metric) -> list[str]:
        total, lines = 0, []
        for end, count in zip((*metric.buckets, "+Inf"), self._observed[name], strict=True):
            total += count
            lines.append(_sample(f"{name}_bucket", "le", str(end), total))
        return [*lines, f"{name}_sum {self._sums[name]:.6g}", f"{name}_count {total}"]


def process_gauges() -> dict[str, float]:
    """What can be told of the process and its event loop; without ``/proc`` less."""
    gauges: dict[str, float] = {
        "deeptalk_gpu_bytes": torch.cuda.memory_allocated() if torch.cuda.is_initialized() else 0,
        "deeptalk_tasks": len(asyncio.all_tasks()),
    }
    own = Path("/proc/self")
    if own.exists():
        pages = int((own / "statm").read_text().split()[1])
        gauges["process_resident_memory_bytes"] = pages * os.sysconf("SC_PAGE_SIZE")
        gauges["process_open_fds"] = len(os.listdir(own / "fd"))
    return gauges


def _sample(name: str, label: str, value: str, number: float) -> str:
    """One line; label values are words of ours, so nothing in them needs escaping."""
    return f'{name}{{{label}="{value}"}} {number:.15g}' if label else f"{name} {number:.15g}"
