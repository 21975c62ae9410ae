"""What a scrape reads: the store once, for all metrics of a registry."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import REGISTRY
from prometheus_client.samples import Exemplar

from celeriac.errors import CeleriacError
from celeriac.metric_facts import EXEMPLAR, INFO, Fact
from celeriac.metrics import TYPES
from celeriac.prometheus.shared import samples_of, told_samples

if TYPE_CHECKING:
    from celeriac import _core
    from celeriac.metric_facts import Facts

__all__ = ["Others", "Scrape", "scraping", "shared_by"]

logger = logging.getLogger("celeriac.prometheus")
_now = threading.local()


class Scrape:
    """A moment's view, read on first use. Without `whole` families are left to who asks for one."""

    def __init__(self, core: _core.Metrics, facts: Facts, whole: bool) -> None:
        self._core, self._facts, self._whole = core, facts, whole

    @functools.cached_property
    def families(self) -> dict[tuple[str, str], tuple[Any, ...]]:
        """By name and scope."""
        return {(f[0], f[1]): f for f in self._core.collect()} if self._whole else {}

    @functools.cached_property
    def facts(self) -> dict[tuple[str, str, str], list[Fact]]:
        """By kind, name and scope."""
        found: dict[tuple[str, str, str], list[Fact]] = {}
        for fact in self._facts.all():
            found.setdefault((fact.kind, fact.name, fact.scope), []).append(fact)
        return found

    def exemplars(self, place: tuple[str, str]) -> dict[tuple[str, ...], dict[int, Exemplar]]:
        """By label values and cell."""
        found: dict[tuple[str, ...], dict[int, Exemplar]] = {}
        for fact in self.facts.get((EXEMPLAR, *place), ()):
            found.setdefault(fact.labels, {})[fact.cell] = Exemplar(*fact.value)
        return found


def scraping(core: _core.Metrics, facts: Facts) -> Scrape:
    """The scrape that this thread is at, or a view for one metric only."""
    current: Scrape | None = getattr(_now, "scrape", None)
    return current or Scrape(core, facts, whole=False)


def shared_by(metrics: Iterator[Metric], core: _core.Metrics, facts: Facts) -> Iterator[Metric]:
    """Yields what the iterator gives, whose steps share one view of the store."""
    scrape = Scrape(core, facts, whole=True)
    while True:
        before = getattr(_now, "scrape", None)
        _now.scrape = scrape  # for a step, not for what its user does meanwhile
        try:
            metric = next(metrics)
        except StopIteration:
            return
        finally:
            _now.scrape = before
        yield metric


class Others:
    """A collector of what the store has and the default registry of this process hasn't."""

    def __init__(self, core: _core.Metrics, facts: Facts, wrapper: type) -> None:
        self._core, self._facts, self._wrapper = core, facts, wrapper

    def describe(self) -> list[Metric]:
        """Nothing: what it will show isn't known beforehand."""
        return []

    def collect(self) -> Iterator[Metric]:
        """What only other processes have declared, and the store's own counts."""
        known = {
            m._name for m in list(REGISTRY._collector_to_names) if isinstance(m, self._wrapper)
        }
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
