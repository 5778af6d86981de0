"""SHA-256, and whether two secrets are the same, without OpenSSL where Python can do without.

hashlib and hmac load OpenSSL's library, which takes 3.5 MB of memory. Who hashes a password or a
whole file takes hashlib all the same: OpenSSL is faster, and lets other threads go on meanwhile.
"""
import contextlib
import functools
import importlib

# (module, function): the first that this Python has. From 3.12 on; before; built without its own.
SHA256 = (("_sha2", "sha256"), ("_sha256", "sha256"), ("hashlib", "sha256"))
COMPARE = (("_operator", "_compare_digest"), ("hmac", "compare_digest"))


@functools.lru_cache(maxsize=None)
def _find_function(places):
    for module, name in places:
        with contextlib.suppress(ImportError, AttributeError):
            return getattr(importlib.import_module(module), name)
    raise ImportError("this Python has none of %s" % ", ".join(".".join(each) for each in places))


def sha256(data):
    """The SHA-256 of bytes, as an object of hashlib."""
    return _find_function(SHA256)(data)


def is_same_secret(one, other):
    """Whether two bytes are the same, in a time that does not tell where they differ."""
    return _find_function(COMPARE)(one, other)
