"""`manage.py make_people`: somebody of each role, named after it, with the password of the
environment variable `DEMO_PASSWORD`. A guest has no name."""

from __future__ import annotations

import os
from typing import Any

from django.contrib.auth.models import Group, User
from django.core.management.base import BaseCommand
from django.db import transaction


class Command(BaseCommand):
    """Add them."""

    help = "Make a user of each role."

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        """A superuser, two groups with a member each, and a member of the staff."""
        password = os.environ["DEMO_PASSWORD"]
        User.objects.create_superuser("superadmin", password=password)
        for name in ("owner", "manager"):
            user = User.objects.create_user(name, password=password)
            user.groups.add(Group.objects.create(name=name))
        User.objects.create_user("staff", password=password, is_staff=True)
