"""SHA-256 and the comparing of secrets, by whatever this Python has for them."""
import hashlib
import hmac
import sys

import pytest

import agent as program

BOTH = (program.SHA256, program.COMPARE)


@pytest.fixture(params=["own", "OpenSSL's"])
def digest_source(request, monkeypatch):
    """Where the functions come from: Python's own, or without those hashlib and hmac."""
    if request.param != "own":
        for places in BOTH:
            for module, _ in places[:-1]:
                monkeypatch.setitem(sys.modules, module, None)      # its import fails
    program._find_function.cache_clear()
    yield request.param
    program._find_function.cache_clear()


@pytest.mark.parametrize("data", [b"", b"abc", b"\xff" * 100000])
def test_sha256_is_the_same_from_everywhere(digest_source, data):
    assert program.sha256(data).digest() == hashlib.sha256(data).digest()
    assert program.sha256(data).hexdigest() == hashlib.sha256(data).hexdigest()


def test_secrets_are_compared(digest_source):
    assert program._find_function(program.COMPARE) is hmac.compare_digest or digest_source == "own"
    assert program.is_same_secret(b"horse", b"horse") and program.is_same_secret(b"", b"")
    for other in (b"", b"hors", b"horsf", b"horse "):
        assert not program.is_same_secret(b"horse", other)


def test_where_nothing_hashes_the_reason_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "_sha256", None)
    with pytest.raises(ImportError, match="none of _sha256.sha256, math.sha256"):
        program._find_function((("_sha256", "sha256"), ("math", "sha256")))
