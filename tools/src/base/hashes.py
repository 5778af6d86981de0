"""Passwords as they are stored: hashes that cost time and memory, with what is needed to compare.

scrypt as RFC 7914 has it, with 16 MiB (N=2**14, r=8, p=1); where the host's OpenSSL has none,
PBKDF2-HMAC-SHA256, which takes a few times as long. Both let other threads go on meanwhile.
"""
import os

from .digests import is_same_secret

MIN_PASSWORD, MAX_PASSWORD = 8, 256     # characters of a password that a user sets
SCRYPT_COST, SCRYPT_BLOCK, SCRYPT_LANES = 1 << 14, 8, 1
PBKDF2_ROUNDS = 300000
SCRYPT_BYTES = 64 * 1024 * 1024         # the most that a stored hash may ask for
SALT_BYTES, HASH_BYTES = 16, 32


def hash_password(password):
    """A password -> the text that is stored."""
    salt = os.urandom(SALT_BYTES)
    for scheme in ("scrypt$%d:%d:%d" % (SCRYPT_COST, SCRYPT_BLOCK, SCRYPT_LANES),
                   "pbkdf2$%d" % PBKDF2_ROUNDS):
        digest = _derive(password, scheme, salt)
        if digest is not None:
            return "$".join((scheme, salt.hex(), digest.hex()))
    raise ValueError("this host can hash no password")


def make_unusable_hash():
    """A text that no password fits, and that costs as much to compare as another."""
    has_scrypt = _derive("", "scrypt$2:1:1", b"") is not None
    scheme = "scrypt$%d:%d:%d" % (SCRYPT_COST, SCRYPT_BLOCK, SCRYPT_LANES) if has_scrypt \
        else "pbkdf2$%d" % PBKDF2_ROUNDS
    return "$".join((scheme, os.urandom(SALT_BYTES).hex(), os.urandom(HASH_BYTES).hex()))


def is_password(password, stored):
    """Whether a password is the one of a stored text; in a time that tells nothing of either.
    ValueError: this host cannot tell, or another program has spoilt the text."""
    scheme, salt, digest = stored.rsplit("$", 2) if stored.count("$") == 3 else ("", "", "")
    derived = _derive(password, scheme, bytes.fromhex(salt))
    if derived is None:
        raise ValueError("this host cannot compare a password that is hashed by %s"
                         % (scheme.partition("$")[0] or "nothing known"))
    return is_same_secret(derived, bytes.fromhex(digest))


def _derive(password, scheme, salt):
    """The hash of a password by a scheme, or None: it is not known, or this host lacks it."""
    import hashlib                      # not before there is a password (digests)
    name, _, parameters = scheme.partition("$")
    data = password.encode("utf-8", "surrogatepass")
    try:
        if name == "scrypt":
            cost, block, lanes = map(int, parameters.split(":"))
            return hashlib.scrypt(data, salt=salt, n=cost, r=block, p=lanes, dklen=HASH_BYTES,
                                  maxmem=SCRYPT_BYTES)
        if name == "pbkdf2":
            return hashlib.pbkdf2_hmac("sha256", data, salt, int(parameters), HASH_BYTES)
    except (AttributeError, ValueError):
        pass                            # no scrypt in this OpenSSL, or what it does not take
    return None
