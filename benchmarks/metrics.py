"""Metrics side by side: `python -m benchmarks.metrics`, from the root of a clone.

One process: microseconds of a call. Then milliseconds of a scrape of many processes, nearly all of
them dead, that left 200 series each, as the workers do that are replaced. prometheus_client counts
in the memory of one process, or in a file for each (its multi-process mode).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any

from .common import Options, Report, end_on_sigterm, parse_options, turns
from .crew import Crew, wait_for
from .servers import directory, store_url

STEPS = 100
SYSTEMS = {
    "celeriac": "store.metrics",
    "celeriac-install": "prometheus_client after celeriac.prometheus.install()",
    "single": "prometheus_client, values in memory: one process only",
    "multi": "prometheus_client, multi-process mode, files in /dev/shm",
}
AGAINST = {"celeriac": ["single", "multi"], "celeriac-install": ["single", "multi"]}
CALLS = ("inc", "labels().inc", "labels(name=).inc", "observe", "set")
LIVING = 4
PROCESSES, PROCESSES_QUICK = 256, 8
SERIES = 200


def prepare(name: str, url: str, folder: str) -> tuple[Any, Callable[[], bytes]]:
    """A maker of metrics as the system's users have it, and a scrape."""
    import celeriac

    if name == "celeriac":
        metrics = celeriac.connect(url).metrics
        return metrics, metrics.exposition
    if name == "multi":
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # before prometheus_client is imported
    import prometheus_client as client
    from prometheus_client import multiprocess

    if name == "celeriac-install":
        import celeriac.prometheus

        celeriac.prometheus.install(url)

    class Client:
        """prometheus_client's classes under the names of store.metrics' calls."""

        counter, histogram = client.Counter, client.Histogram

        @staticmethod
        def gauge(name: str, text: str, labels: Any = (), *, mode: str = "sum") -> Any:
            return client.Gauge(name, text, labels, multiprocess_mode=mode)  # type: ignore[arg-type]

    def scrape() -> bytes:
        if name != "multi":
            return client.generate_latest(client.REGISTRY)
        registry = client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return client.generate_latest(registry)

    return Client, scrape


def calls_of(metrics: Any) -> dict[str, Callable[[], Any]]:
    """A call of each kind."""
    counter = metrics.counter("requests", "Requests.")
    labelled = metrics.counter("views", "Views.", ["method", "view", "status"])
    histogram = metrics.histogram("seconds", "Seconds.")
    gauge = metrics.gauge("depth", "Depth.")
    labels, observe, put = labelled.labels, histogram.observe, gauge.set
    return {
        "inc": counter.inc,
        "labels().inc": lambda: labels("GET", "product", "200").inc(),
        "labels(name=).inc": lambda: labels(method="GET", view="product", status="200").inc(),
        "observe": lambda: observe(0.02),
        "set": lambda: put(17.0),
    }


def make_caller(name: str, url: str, folder: str) -> Callable[..., float]:
    """A process of a crew: microseconds of a call."""
    calls = calls_of(prepare(name, url, folder)[0])

    def work(start: float, what: str, seconds: float) -> float:
        call = calls[what]
        steps = range(STEPS)
        call()
        wait_for(start)
        begun = now = time.perf_counter()
        n = 0
        while now - begun < seconds:
            for _ in steps:
                call()
            n += STEPS
            now = time.perf_counter()
        return (now - begun) / n * 1e6

    return work


def make_scraper(name: str, url: str, folder: str, processes: int) -> Callable[..., float]:
    """A process of a crew: milliseconds of a scrape of processes that it has forked."""
    metrics, scrape = prepare(name, url, folder)
    counter = metrics.counter("views", "Views.", ["view", "method"])
    gauge = metrics.gauge("depth", "Depth.", ["view", "method"], mode="sum")
    living = []
    for number in range(processes):
        living.append(fork_and_count(counter, gauge))
        if number < processes - LIVING:
            end(living.pop())
    lines = [line for line in scrape().splitlines() if line.startswith((b"views_total", b"depth"))]
    expected = {float(processes)}
    if len(lines) != SERIES or {float(line.split()[-1]) for line in lines} != expected:
        raise AssertionError(f"{name} shows {len(lines)} series: {lines[:2]}")

    def work(start: float, what: str, seconds: float) -> float:
        if what == "end":
            for pid in living:
                end(pid)
            return 0.0
        wait_for(start)
        begun = now = time.perf_counter()
        n = 0
        while now - begun < seconds:
            scrape()
            n += 1
            now = time.perf_counter()
        return (now - begun) / n * 1e3

    return work


def fork_and_count(counter: Any, gauge: Any) -> int:
    """A child that has counted in each series, and stays."""
    ready, said = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for n in range(SERIES // 2):
            counter.labels(f"view {n}", "GET").inc()
            gauge.labels(f"view {n}", "GET").set(1)
        os.write(said, b".")
        while True:
            signal.pause()
    os.read(ready, 1)
    os.close(ready)
    os.close(said)
    return pid


def end(pid: int) -> None:
    """As the kernel ends those that take too much memory."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@contextmanager
def crews(make: Any, names: list[str], *more: Any) -> Iterator[dict[str, Crew]]:
    """A process for each system: what install() has changed stays changed."""
    with ExitStack() as stack:
        found = {}
        for name in names:
            url = stack.enter_context(store_url("64M"))
            folder = stack.enter_context(directory())
            found[name] = stack.enter_context(Crew(1, make, name, url, str(folder), *more))
        yield found


def one_process(report: Report, options: Options) -> None:
    """Microseconds a call."""
    group = "One process"
    with crews(make_caller, list(SYSTEMS)) as found:
        for number in range(options.rounds):
            report.round(number, "with one process")
            for case in CALLS:
                for name in turns(list(SYSTEMS), number) if report.wanted(group, case) else ():
                    (taken,) = found[name].tell((case, options.seconds))
                    report.add(group, case, name, taken, "µs a call")


def many_processes(report: Report, options: Options) -> None:
    """Milliseconds a scrape."""
    processes = PROCESSES_QUICK if options.quick else PROCESSES
    group = "A scrape of many processes"
    case = f"{processes} processes, {LIVING} of them living, {SERIES} series each"
    if not report.wanted(group, case):
        return
    names = [name for name in SYSTEMS if name != "single"]
    with crews(make_scraper, names, processes) as found:
        for number in range(options.rounds):
            report.round(number, "with many processes")
            for name in turns(names, number):
                (taken,) = found[name].tell(("scrape", options.seconds))
                report.add(group, case, name, taken, "ms a scrape")
        for crew in found.values():
            crew.tell(("end", 0.0))


def main() -> None:
    """Run it."""
    options = parse_options(str(__doc__).splitlines()[0], rounds=7, seconds=0.2)
    if find_spec("prometheus_client") is None:
        sys.exit("prometheus_client isn't installed: pip install 'celeriac[prometheus]'")
    end_on_sigterm()
    report = Report("metrics", options, SYSTEMS, AGAINST)
    from importlib.metadata import version

    report.versions["prometheus_client"] = version("prometheus_client")
    one_process(report, options)
    many_processes(report, options)
    report.finish()


if __name__ == "__main__":
    main()
