"""`"celeriac.django"` in INSTALLED_APPS, in a project of its own."""

from __future__ import annotations

import subprocess
import sys

PROJECT = """
import django
from django.apps import apps
from django.conf import settings
from django.core.management import call_command

settings.configure(
    INSTALLED_APPS=["celeriac.django"],
    CACHES={"default": {"BACKEND": "celeriac.django.cache.CeleriacCache",
                        "LOCATION": "%s", "OPTIONS": {"create": False}}},
)
django.setup()
call_command("check", fail_level="WARNING", verbosity=0)
config = apps.get_app_config("celeriac_django")
print(config.name, config.verbose_name)
"""


def test_the_application_is_installed_and_checked_while_the_store_is_away(location: str) -> None:
    command = [sys.executable, "-c", PROJECT % location]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "celeriac.django celeriac"
