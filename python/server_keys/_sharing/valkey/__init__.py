"""A group's store in Valkey or Redis, for members on many hosts."""

try:
    import valkey as _library  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "valkey":
        raise
    raise ModuleNotFoundError(
        "a share of valkey:// needs valkey-py, which is not installed: pip install 'valkey>=6.2'", name="valkey"
    ) from None

from server_keys._sharing.valkey.store import ValkeyStore

__all__ = ["ValkeyStore"]
