"""URLs and options that can't be: an error that says what can, and nothing made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import celeriac


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "schemes are shm://"),
        ("app", "schemes are shm://"),
        ("shm:app", "Did you mean shm://"),
        ("smh://app", "Did you mean shm://"),
        ("memcached://app", "unknown store URL memcached://.*schemes are shm://"),
        ("file://app", "file://app is no directory of this host.*absolute path"),
        ("file://host/app", "file://host/app is no directory of this host"),
        ("file://", "absolute path"),
        ("file:///", "the root directory"),
        ("file:////", "the root directory"),
        ("file:///tmp/../etc", r"without '\.\.'"),
        ("file:///tmp/%2E%2E/etc", r"without '\.\.'"),
        ("file:///tmp/a%00b", "is not the path"),
        ("file:///tmp/app?durability=alway", "durability='alway' is not.*Did you mean 'always'"),
        ("file:///no/such/parent", "can't make directory /no/such/parent: No such file"),
        ("redis://localhost/0", "redis:// is reserved"),
        ("redis+cluster://a,b", "is reserved"),
        ("shm://", "'' is not a store name"),
        ("shm:///", "'' is not a store name"),
        ("shm://?memory=4M", "'' is not a store name"),
        ("shm://..", "is not a store name"),
        ("shm://../../etc", "is not a store name"),
        ("shm://a/b", "is not a store name"),
        ("shm://a%2Fb", "is not a store name"),
        ("shm://.hidden", "does not begin with"),
        ("shm://-app", "does not begin with"),
        ("shm://user@app", "is not a store name"),
        ("shm://app:6379", "is not a store name"),
        ("shm://äpp", "is not a store name"),
        ("shm://" + "x" * 65, "1 to 64 letters"),
        ("shm://a b", "has spaces"),
        ("shm://app\n", "has spaces or line breaks"),
        ("shm://a\0b", "has spaces"),
        ("shm://[app", "is not a store URL"),
        ("shm://app#memory=4M", "fragment"),
        (
            "shm://app?memry=4M",
            "unknown option 'memry'.*memory, create, mode.*Did you mean 'memory'",
        ),
        ("shm://app?durability=always", "unknown option 'durability'"),
        ("shm://app?memory=4M&memory=8M", "'memory' is given twice"),
        ("shm://app?memory=4M;create=no", "is not a size"),
        ("shm://app?create=maybe", "create='maybe' is neither true nor false"),
        ("shm://app?create=", "neither true nor false"),
        ("shm://app?mode=0777", "mode='0777' is not supported: use 0600.*other users' processes"),
        ("shm://app?mode=rw", "mode='rw' is not supported"),
    ],
)
def test_url(root: Path, url: str, said: str) -> None:
    with pytest.raises(celeriac.ConfigurationError, match=said) as caught:
        celeriac.connect(url)
    assert isinstance(caught.value, ValueError)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("url", [None, 5, b"shm://app", Path("app"), ["shm://app"]])
def test_what_is_not_a_url(root: Path, url: Any) -> None:
    with pytest.raises(celeriac.ConfigurationError, match="a store URL is a str"):
        celeriac.connect(url)
    assert list(root.iterdir()) == []


SIZES = ["", "M", "abc", "-5", "-5M", "4 MM", "4X", "1e9", "0x10", "inf", "nan", "4,5M", "½M", "٤M"]


@pytest.mark.parametrize("size", SIZES)
def test_not_a_size(root: Path, size: str) -> None:
    for connect in (
        lambda: celeriac.connect(f"shm://app?memory={size.replace(' ', '+')}"),
        lambda: celeriac.connect("shm://app", memory=size),
    ):
        with pytest.raises(celeriac.ConfigurationError, match=r'is not a size.*memory="512M"'):
            connect()
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("size", [True, 4.5e6, b"4M", [], -1])
def test_not_a_size_either(root: Path, size: Any) -> None:
    with pytest.raises(celeriac.ConfigurationError, match="is not a size"):
        celeriac.connect("shm://app", memory=size)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("size", ["0", "1", "1M", "1.9M", "2097151", 5])
def test_too_small(root: Path, size: Any) -> None:
    with pytest.raises(
        celeriac.ConfigurationError, match=r"memory=\d+ bytes is too small.*memory=2M"
    ):
        celeriac.connect("shm://app", memory=size)
    with celeriac.connect("shm://app", memory="4M") as store:
        store.cache().set("k", 1)
        for there in ("open", "closed"):
            with pytest.raises(celeriac.ConfigurationError, match="too small"):
                celeriac.connect("shm://app", memory=size)
            if there == "open":
                assert store.cache().get("k") == 1
                store.close()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("bogus", 1, "unknown option 'bogus'"),
        ("max_memory", "4M", "Did you mean 'memory'"),
        ("create", None, "neither true nor false"),
        ("create", 2, "neither true nor false"),
        ("mode", 0o777, "use 0600"),
        ("mode", None, "use 0600"),
        ("mode", 1.5, "use 0600"),
    ],
)
def test_options(root: Path, option: str, value: Any, said: str) -> None:
    with pytest.raises(celeriac.ConfigurationError, match=said):
        celeriac.connect("shm://app", **{option: value})
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("SHM://app?memory=4M", {}),
        ("shm://app/", {"memory": "4m"}),
        ("shm://app?memory=1", {"memory": "4MiB"}),
        ("shm://app?memory=4194304&create=yes", {}),
        ("shm://app", {"memory": 4 << 20, "create": True, "mode": 0o600}),
        ("shm://app?mode=0600&create=ON", {"memory": " 4.0 MB "}),
    ],
)
def test_what_is_right(root: Path, url: str, options: dict[str, Any]) -> None:
    with celeriac.connect(url, **options) as store:
        assert store.url == "shm://app?memory=4194304"
        assert store.stats()["memory_limit"] == 4 << 20


def test_no_store(root: Path) -> None:
    for _ in range(2):
        with pytest.raises(celeriac.StoreNotFound, match="app"):
            celeriac.connect("shm://app", create=False)
        assert list(root.iterdir()) == []
    celeriac.connect("shm://other").close()
    with pytest.raises(celeriac.StoreNotFound, match="app"):
        celeriac.connect("shm://app?create=false")
    assert [p.name for p in next(root.iterdir()).iterdir()] == ["other"]
    celeriac.connect("shm://other?create=false").close()


def test_no_default_store() -> None:
    celeriac.set_default(None)
    with pytest.raises(celeriac.ConfigurationError, match="set_default"):
        celeriac.get_default()
