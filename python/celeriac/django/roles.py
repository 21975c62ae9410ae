"""Which role a request has in ``CELERIAC["RATE_LIMITS"]``, unless ``RATE_LIMIT_ROLE`` says.

In this order, of the names that RATE_LIMITS has:

1. a superuser: ``superuser`` or ``superadmin``
2. a user in groups: the group whose name comes first in RATE_LIMITS
3. staff: ``staff``
4. any other user: ``user``
5. whoever is left: ``guest`` or ``anonymous``

A user is counted by its primary key, others by their address. Groups are asked for only if there
are names that could be theirs, and what the database said is believed for a minute.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from celeriac.store import Store

__all__ = ["BUILT_IN", "role_of"]

SUPERUSER, STAFF, USER, GUEST = ("superuser", "superadmin"), "staff", "user", ("guest", "anonymous")
BUILT_IN = frozenset((*SUPERUSER, STAFF, USER, *GUEST))

#: Seconds that the groups of a user are remembered.
GROUPS_SECONDS = 60


def role_of(user: Any, names: Collection[str], store: Store | None = None) -> str | None:
    """The role, one of ``names``; None when none of them is this user's.

    :param user: Django's, or None.
    :param store: where groups are remembered; None asks the database each time.
    """
    if user is not None and user.is_authenticated:
        if user.is_superuser:
            for name in SUPERUSER:
                if name in names:
                    return name
        if not BUILT_IN.issuperset(names):
            groups = _groups(user, store)
            for name in names:
                if name in groups and name not in BUILT_IN:
                    return name
        if user.is_staff and STAFF in names:
            return STAFF
        if USER in names:
            return USER
    return next((name for name in GUEST if name in names), None)


def _groups(user: Any, store: Store | None) -> list[str]:
    groups = getattr(user, "groups", None)
    if groups is None:  # a model of users without them
        return []

    def ask() -> list[str]:
        return [str(name) for name in groups.values_list("name", flat=True)]

    if store is None:
        return ask()
    found: list[str] = store.cache("celeriac.groups").get_or_set(str(user.pk), ask, GROUPS_SECONDS)
    return found
