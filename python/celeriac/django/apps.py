"""The Django application, for projects that put `"celeriac.django"` into INSTALLED_APPS."""

from __future__ import annotations

from django.apps import AppConfig


class CeleriacConfig(AppConfig):
    """Named `celeriac_django`, so that an application of the project may be called `django`."""

    name = "celeriac.django"
    label = "celeriac_django"
    verbose_name = "celeriac"
