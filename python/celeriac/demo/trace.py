"""Which products are looked at, in order: replayed from a trace, or drawn.

A trace is a file of big-endian int32 keys, one for each page access, `.xz` packed or not. Its keys
become products by rank: the keys are counted and numbered from the most to the least accessed, and
key number r becomes product r modulo the number of products. So the most accessed product has the
trace's own highest share, the next one the next, and the long tail beyond the number of products is
spread evenly over all of them; order and repetition in time stay as recorded. A shorter trace than
needed starts again from its beginning. Which product has which rank is shuffled with the seed, so
that the popular ones aren't all on the first page of the catalogue.
"""

from __future__ import annotations

import itertools
import lzma
import random
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from celeriac.errors import ConfigurationError

KEY_BYTES = 4
MOST_KEYS = 2_000_000  # of a longer trace only the beginning is read


def replayed(path: Path, products: int, seed: int) -> Iterator[int]:
    """Yield product numbers from 1 to `products` as `path` has them, again and again.

    Raises `ConfigurationError` when the file can't be read or isn't a trace.
    """
    keys = read_keys(path)
    product_of = _by_rank(products, seed)
    ranks = {key: rank for rank, (key, _) in enumerate(Counter(keys).most_common())}
    return itertools.cycle([product_of[ranks[key] % products] for key in keys])


def drawn(products: int, seed: int, exponent: float = 1.0) -> Iterator[int]:
    """Yield product numbers from 1 to `products` by Zipf's law, the same for the same seed."""
    product_of = _by_rank(products, seed)
    weights = list(itertools.accumulate(1 / rank**exponent for rank in range(1, products + 1)))
    rng = random.Random(seed)
    while True:
        yield from rng.choices(product_of, cum_weights=weights, k=1_000)


def read_keys(path: Path) -> array[int]:
    """The trace's keys, at most the first two million. Raises `ConfigurationError`."""
    try:
        with lzma.open(path) if path.suffix == ".xz" else path.open("rb") as file:
            data = file.read(MOST_KEYS * KEY_BYTES)
    except (OSError, lzma.LZMAError, EOFError) as error:
        raise ConfigurationError(f"can't read the trace {path}: {error}") from error
    if not data or len(data) % KEY_BYTES:
        raise ConfigurationError(f"{path} is not a trace of int32 keys: it has {len(data)} bytes")
    keys = array("i")
    if keys.itemsize != KEY_BYTES:  # pragma: no cover - no such platform among ours
        raise ConfigurationError("this platform has no 4-byte int")
    keys.frombytes(data)
    keys.byteswap()
    return keys


def _by_rank(products: int, seed: int) -> list[int]:
    """The product that each popularity rank belongs to."""
    product_of = list(range(1, products + 1))
    random.Random(seed).shuffle(product_of)
    return product_of
