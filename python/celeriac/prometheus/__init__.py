"""prometheus_client's metrics in a store: every process of the host, in one exposition.

    celeriac.prometheus.install("shm://app")

Needs prometheus_client (``pip install 'celeriac[prometheus]'``).
"""

from celeriac.prometheus.collector import collector
from celeriac.prometheus.installed import exclude, install

__all__ = ["collector", "exclude", "install"]
