"""The gate's own pages and its control socket, told where to look."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mcpgate.config.model import AdminSection
from mcpgate.model import Secret
from mcpgate.web.admin import AdminUsers

if TYPE_CHECKING:
    pass

ADMIN_PAGES = (b"/stats", b"/metrics")
USERS_FILE_BYTES = 1 << 20


def admin_users(admin: AdminSection) -> AdminUsers:
    """
    Read who may see statistics.

    :raises PasswordError: a hash can not be read.
    :raises OSError: the users file can not be read.
    """
    pepper = os.urandom(32)
    if admin.users_file is not None:
        with admin.users_file.open(encoding="utf-8") as file:
            return AdminUsers.parse(file.read(USERS_FILE_BYTES), pepper)
    password: Secret | str | None = admin.password or admin.password_hash
    return AdminUsers({admin.user: password} if admin.user and password else {}, pepper)
