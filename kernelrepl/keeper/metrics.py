"""What a keeper counts and measures. It subscribes to the events of the others; nobody else knows of it."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

_CALL_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60, 600)
_START_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60)
_COMMIT_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 60)


class Metrics:
    """Since the keeper started. Times are in seconds, sizes in bytes; names are those of Prometheus."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._calls = self._histogram("call_seconds", "Calls of tools until their reply", _CALL_S, "tool")
        self._refusals = self._counter("refusals", "Calls that were refused", "error")
        self._executions = self._counter("executions", "Executions that have ended", "status")
        self._commits = self._histogram(
            "commit_seconds", "Commits, from their arrival until they are durable", _COMMIT_S
        )
        self._committed_bytes = self._counter("committed_bytes", "What commits wrote into the database")
        self._failed_commits = self._counter("failed_commits", "Commits that could not be stored")
        self._missed = self._counter("missed_changes", "Names stored by an audit, not by the commit that changed them")
        self._starts = self._histogram(
            "kernel_start_seconds", "Starts of kernels until they can run code, with what is restored", _START_S, "how"
        )
        self._deaths = self._counter("kernel_deaths", "Kernels that ended without being told to")
        self._restores = self._counter("restores", "Kernels that took a session up again")
        self._restored = self._counter("restored_names", "Names that came back")
        self._not_restored = self._counter("not_restored_names", "Names that did not come back")
        self._hibernations = self._counter("hibernations", "Sessions that were put to sleep", "why")
        self._expirations = self._counter("expirations", "Sessions that were deleted for their age")

    def __call__(self, event: str, **data: Any) -> None:
        """Take an event; one that nothing is counted of is none of our business."""
        match event:
            case "called":
                self._calls.labels(data["tool"]).observe(data["seconds"])
                if data["error"] is not None:
                    self._refusals.labels(data["error"]).inc()
            case "executed":
                self._executions.labels(data["status"]).inc()
            case "committed":
                self._commits.observe(data["seconds"])
                self._committed_bytes.inc(data["bytes"])
                self._missed.inc(data["missed"])
            case "commit_failed":
                self._failed_commits.inc()
            case "kernel_started":
                self._starts.labels(data["how"]).observe(data["seconds"])
                if data["restored"] or data["not_restored"]:
                    self._restores.inc()
                self._restored.inc(data["restored"])
                self._not_restored.inc(data["not_restored"])
            case "lost":
                self._not_restored.inc(data["names"])
            case "kernel_died":
                self._deaths.inc()
            case "hibernated":
                self._hibernations.labels(data["why"].split(" =")[0]).inc()
            case "expired":
                self._expirations.inc()

    def dump(self) -> dict[str, Any]:
        """Each metric by its name: what it is, its type, and its samples with their labels."""
        return {
            family.name: {
                "help": family.documentation,
                "type": family.type,
                "samples": [
                    {"name": sample.name, "labels": sample.labels, "value": sample.value}
                    for sample in family.samples
                    if not sample.name.endswith("_created")
                ],
            }
            for family in self._registry.collect()
        }

    def value(self, name: str, **labels: str) -> float:
        """One sample; 0 if nothing has been counted yet."""
        return self._registry.get_sample_value(f"kernelrepl_{name}", labels) or 0.0

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(f"kernelrepl_{name}", help_, labels, registry=self._registry)

    def _histogram(self, name: str, help_: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"kernelrepl_{name}", help_, labels, registry=self._registry, buckets=buckets)
