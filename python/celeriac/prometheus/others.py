"""What a scrape shows that this process hasn't declared."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import REGISTRY

from celeriac.errors import CeleriacError
from celeriac.metric_facts import EXEMPLAR, INFO
from celeriac.metrics import TYPES
from celeriac.prometheus.scrape import scraping
from celeriac.prometheus.shared import samples_of, told_samples

if TYPE_CHECKING:
    from celeriac import _core
    from celeriac.metric_facts import Facts

__all__ = ["Others"]

logger = logging.getLogger("celeriac.prometheus")


class Others:
    """A collector of what the store has and the default registry of this process hasn't."""

    def __init__(self, core: _core.Metrics, facts: Facts, wrapper: Any) -> None:
        self._core, self._facts, self._wrapper = core, facts, wrapper

    def describe(self) -> list[Metric]:
        """Nothing: what it will show isn't known beforehand."""
        return []

    def collect(self) -> Iterator[Metric]:
        """What only other processes have declared, and the store's own counts."""
        here: list[Any] = list(REGISTRY._collector_to_names)
        known = {metric._name for metric in here if isinstance(metric, self._wrapper)}
        scrape = scraping(self._core, self._facts)
        try:
            families = list(scrape.families.values()) or self._core.collect()
        except CeleriacError as error:
            logger.warning("metrics of other processes aren't shown: %s", error)
            return
        for name, scope, text, kind, _, names, bounds, found in families:
            if scope or name in known or not found:
                continue
            metric = Metric(name, text, TYPES[kind])
            exemplars = scrape.exemplars((name, scope))
            for labels, process, created, values in found:
                named = dict(zip(names, labels, strict=True))
                if process:
                    named["pid"] = process
                given = exemplars.get(labels, {})
                for sample in samples_of(kind, named, bounds, created, values, given):
                    metric.add_sample(name + sample.name, *sample[1:])
            yield metric
        for (kind, name, scope), facts in scrape.facts.items():
            if scope or name in known or kind == EXEMPLAR:
                continue
            metric = Metric(name, facts[0].value[0], "info" if kind == INFO else "stateset")
            for fact in facts:
                for sample in told_samples(fact):
                    metric.add_sample(name + sample.name, *sample[1:])
            yield metric
