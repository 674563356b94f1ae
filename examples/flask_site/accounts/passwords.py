"""The tasks: all that takes long."""

from __future__ import annotations

import hashlib
import hmac
import os
import sqlite3

from flask import current_app

from accounts.database import connection
from accounts.extensions import tasks


def scrypt(password: str, salt: bytes) -> bytes:
    """The slow part."""
    return hashlib.scrypt(password.encode(), salt=salt, **current_app.config["SCRYPT"])


@tasks.task(timeout=30)
def register(name: str, password: str) -> bool:
    """Make an account; False if there is one of that name."""
    salt = os.urandom(16)
    row = (name, salt, scrypt(password, salt), os.getpid())
    try:
        with connection() as database:
            database.execute("insert into account values (?, ?, ?, ?)", row)
    except sqlite3.IntegrityError:
        return False
    return True


@tasks.task(timeout=30)
def is_right(name: str, password: str) -> bool:
    """Whether that is the account's password."""
    found = connection().execute("select salt, hash from account where name = ?", (name,))
    row = found.fetchone()
    if row is None:
        scrypt(password, b"nobody has it")  # it takes as long: nobody learns which names there are
        return False
    return hmac.compare_digest(row["hash"], scrypt(password, row["salt"]))
