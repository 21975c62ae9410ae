"""A store's own statistics for prometheus_client."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

import celeriac
from celeriac import own_metrics

__all__ = ["StoreCollector", "collector"]


class StoreCollector:
    """What :mod:`celeriac.own_metrics` reads, as a collector for a registry."""

    def __init__(self, store: celeriac.Store) -> None:
        self._store = store

    def describe(self) -> list[Metric]:
        """The names, so that nothing is read for them."""
        return [Metric(n, text, kind) for n, (kind, text, _) in own_metrics.FAMILIES.items()]

    def collect(self) -> Iterator[Metric]:
        """The store as it is now; only ``celeriac_up 0`` when it can't be used."""
        for family in own_metrics.families(self._store):
            metric = Metric(family.name, family.help, family.type)
            name = family.name + ("_total" if family.type == own_metrics.COUNTER else "")
            for values, value in family.samples.items():
                metric.add_sample(name, dict(zip(family.labels, values, strict=True)), value)
            yield metric


def collector(store: str | celeriac.Store) -> StoreCollector:
    """A collector of a store's own statistics: ``REGISTRY.register(collector(store))``.

    :param store: a store, or the URL of one that exists.

    Raises what :func:`celeriac.connect` raises.
    """
    if isinstance(store, str):
        store = celeriac.connect(store, create=False)
    return StoreCollector(store)
