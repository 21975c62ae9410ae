"""The Django application, for projects that put `"celeriac.django"` into INSTALLED_APPS."""

from __future__ import annotations

from django.apps import AppConfig

from celeriac import request_id


class CeleriacConfig(AppConfig):
    """Named `celeriac_django`, so that an application of the project may be called `django`."""

    name = "celeriac.django"
    label = "celeriac_django"
    verbose_name = "celeriac"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Log records and Celery's tasks have the id of the request, in workers too; and system
        checks are run."""
        from celeriac.django import checks  # needs settings

        checks.register()
        request_id.in_log_records()
        request_id.carry_in_tasks()
