"""What a scrape reads: the store once, for all metrics of a registry."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar

from celeriac.metric_facts import EXEMPLAR, Fact

if TYPE_CHECKING:
    from celeriac import _core
    from celeriac.metric_facts import Facts

__all__ = ["Scrape", "scraping", "shared_by"]

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
