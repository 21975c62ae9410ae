"""celeriac for Django: a cache that every process of the host shares, with no server to run.

    CACHES = {"default": {"BACKEND": "celeriac.django.cache.CeleriacCache",
                          "LOCATION": "shm://app"}}

`cache.py` is the backend, and says what it promises. `"celeriac.django"` in INSTALLED_APPS is
optional. Nothing is imported here, so that the backend costs no more than itself.
"""
