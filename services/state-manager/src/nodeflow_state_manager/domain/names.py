"""Names that come from outside and end up in paths and keys: tenants and digests.

Owns which of them are well-formed. Must not know what they name.
"""

import re
from typing import Final

from nodeflow_shared.errors import FieldViolation, InvalidInput

_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


def check_tenant(tenant: str, path: str = "tenant") -> str:
    """Return the tenant; raises InvalidInput unless it is a plain name, which is also safe as a directory's name."""
    if _TENANT.fullmatch(tenant):
        return tenant
    hint = "1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit, like default"
    raise invalid(path, f"{tenant!r} is not the name of a tenant", hint)


def check_digest(digest: str, path: str = "digest") -> str:
    """Return the digest; raises InvalidInput unless it is `sha256:` with 64 lower-case hexadecimal digits."""
    if _DIGEST.fullmatch(digest):
        return digest
    raise invalid(path, f"{digest!r} is not a digest", "sha256: followed by 64 lower-case hexadecimal digits")


def invalid(path: str, description: str, hint: str = "") -> InvalidInput:
    """Return the error for one wrong field."""
    return InvalidInput(f"{path}: {description}", violations=[FieldViolation(path, description, hint)])
