"""The `manage.py` of a small project.

manage_site.py LOCATION OPTIONS-AS-JSON COMMAND ...

The option `settings` is a dictionary of further ones of the project. `call NAME ...` is
`call_command(NAME, ...)`.
"""

from __future__ import annotations

import json
import sys

import django
from django.conf import settings
from django.core.management import call_command, execute_from_command_line

LOCATION, OPTIONS, *COMMAND = sys.argv[1:]
given = json.loads(OPTIONS)
more = given.pop("settings", {})
others = more.pop("CACHES", {"local": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}})
settings.configure(
    **more,
    INSTALLED_APPS=["celeriac.django"],
    CACHES={
        "default": {
            "BACKEND": "celeriac.django.cache.CeleriacCache",
            "LOCATION": LOCATION,
            "OPTIONS": given,
        },
        **others,
    },
)
if COMMAND[0] == "call":
    django.setup()
    call_command(COMMAND[1], *COMMAND[2:])
else:
    execute_from_command_line(["manage.py", *COMMAND])
