"""TLS at the agent's end: its certificate, which is read again, and connections sealed by it.

Thread certificates: reads them again after SIGHUP, tells when one expires; ends at close().
"""
import contextlib
import os
import select
import socket
import time

from ..base.errors import CannotStart
from ..base.program import log
from ..base.times import local_iso
from ..base.workers import Worker
from .incoming import WIRE_PIECE, Outwaited, receive
from .peer import plain_address

TLS_BYTE = b"\x16"          # what begins with it is TLS: a handshake (RFC 8446, 5.1)
EXPIRY_LOOK_S = 86400.0            # between two looks whether the certificate expires
EXPIRY_S = 14 * 86400.0     # so long before it does so it is told
TLS_QUIET_S = 60.0              # between two lines of the log about connections that failed
# reasons of OpenSSL that are plainer in other words
TLS_WORDS = {"KEY_VALUES_MISMATCH": "the key does not belong to the certificate",
             "PEM lib": "it is no PEM text of this",
             "NO_CERTIFICATE_OR_CRL_FOUND": "there is no certificate in it"}


def load_ssl(option):
    """The module ssl. CannotStart where this host's Python has none."""
    try:
        import ssl
    except ImportError:
        raise CannotStart("%s: this host's Python has no TLS (no module ssl)" % option) from None
    return ssl


def tell_tls(error):
    """In words, what is wrong by an error of ssl, or of a file."""
    text = getattr(error, "strerror", None) or str(error)
    reason = getattr(error, "reason", None) or ("PEM lib" if "PEM lib" in text else "")
    return (TLS_WORDS.get(reason) or getattr(error, "verify_message", None)
            or reason.lower().replace("_", " ") or text)


class Certificates:
    """What the agent shows to who connects by TLS, and the authorities whose certificates it takes
    from them: as they were read last."""

    def __init__(self, certificate, key, client_ca, clock):
        self._certificate, self._key = certificate, key or certificate
        self._client_ca, self._clock = client_ca, clock
        self._ssl = load_ssl("--tls-cert")
        self._context = self._load()
        self._expiry = self._read_expiry()      # seconds since 1970, or None
        self._quiet_until, self._unsaid = 0.0, 0    # of failed connections
        self._wake_out, self._wake_in = os.pipe()
        os.set_blocking(self._wake_in, False)
        self._thread = Worker(self._run, name="certificates")

    def start(self):
        """Looks after them from now on. RuntimeError: the host has no thread for it."""
        with contextlib.suppress(OSError):
            if os.stat(self._key).st_mode & 0o007:
                log.warning("everybody on this host can read the key %s (chmod 600)", self._key)
        self._tell_expiry()
        self._thread.start()

    def reread(self):
        """Has them read again, soon. For a signal's handler: it takes no lock."""
        if self._wake_in is not None:
            with contextlib.suppress(BlockingIOError):      # that was asked for often enough
                os.write(self._wake_in, b"!")

    def close(self):
        """Ends the thread."""
        wake_in, self._wake_in = self._wake_in, None
        os.close(wake_in)                       # it reads the end
        if self._thread.is_alive():
            self._thread.join()
        os.close(self._wake_out)

    def _run(self):
        """Thread certificates."""
        while True:
            is_asked = select.select([self._wake_out], [], [], EXPIRY_LOOK_S)[0]
            if is_asked:
                if not os.read(self._wake_out, 4096):
                    return
                self.read_again()
            self._tell_expiry()

    def read_again(self):
        """Takes what the files have now; what is wrong with them is logged, and the old stay."""
        try:
            self._context, self._expiry = self._load(), self._read_expiry()
            log.info("the TLS certificates were read again")
        except CannotStart as error:
            log.error("%s; the TLS certificates from before stay", error.message)

    def _load(self):
        """A new context of ssl. CannotStart."""
        context = self._ssl.SSLContext(self._ssl.PROTOCOL_TLS_SERVER)
        if hasattr(context, "minimum_version"):         # from 3.7 on
            context.minimum_version = self._ssl.TLSVersion.TLSv1_2
        else:
            context.options |= (self._ssl.OP_NO_SSLv2 | self._ssl.OP_NO_SSLv3
                                | self._ssl.OP_NO_TLSv1 | self._ssl.OP_NO_TLSv1_1)
        # no session is resumed: who shows a certificate shows it each time; and nothing starts over
        context.options |= (self._ssl.OP_NO_COMPRESSION | self._ssl.OP_NO_TICKET
                            | self._ssl.OP_CIPHER_SERVER_PREFERENCE
                            | getattr(self._ssl, "OP_NO_RENEGOTIATION", 0))
        if hasattr(context, "num_tickets"):             # from 3.8 on
            context.num_tickets = 0
        self._read([("--tls-cert", self._certificate), ("--tls-key", self._key)],
                   lambda: context.load_cert_chain(self._certificate, self._key, lambda: ""))
        if self._client_ca:
            context.verify_mode = self._ssl.CERT_OPTIONAL
            self._read([("--tls-client-ca", self._client_ca)],
                       lambda: context.load_verify_locations(self._client_ca))
        return context

    @staticmethod
    def _read(files, function):
        """Calls a function of these files [(option, path)]. CannotStart, which names them."""
        for option, path in files:
            try:
                with open(path, "rb") as file:
                    needs_passphrase = b"ENCRYPTED" in file.read()
            except OSError as error:
                raise CannotStart("%s %s: %s" % (option, path, error.strerror)) from None
            if needs_passphrase:                       # ssl would ask for it at the terminal
                raise CannotStart("%s %s: the key has a passphrase, and nobody is there to type it"
                                  % (option, path))
        try:
            function()
        except (OSError, ValueError) as error:          # SSLError is an OSError
            raise CannotStart("%s: %s" % (" ".join("%s %s" % file for file in files),
                                          tell_tls(error))) from None

    def _read_expiry(self):
        """When the certificate expires, seconds since 1970; None: this Python cannot tell."""
        try:        # no public function of Python reads a certificate from a file
            fields = self._ssl._ssl._test_decode_cert(self._certificate)
            return self._ssl.cert_time_to_seconds(fields["notAfter"])
        except (AttributeError, KeyError, ValueError, OSError):
            return None

    def _tell_expiry(self):
        """Warns of a certificate that has expired, or is about to."""
        if self._expiry is None:
            return
        left_s, when = self._expiry - self._clock.now(), local_iso(self._expiry)
        if left_s <= 0:
            log.error("the TLS certificate %s expired at %s: clients that verify it refuse to "
                      "connect; replace it and send SIGHUP", self._certificate, when)
        elif left_s <= EXPIRY_S:
            log.warning("the TLS certificate %s expires at %s, in %d days; replace it and send "
                        "SIGHUP", self._certificate, when, left_s // 86400)

    # -- connections -------------------------------------------------------------------

    def seal(self, connection, within_s):
        """The Sealed of a connection whose client begins TLS. Outwaited: it took too long; OSError:
        it has failed, which is in the log, once a minute at most."""
        sealed = Sealed(connection, self._ssl, self._context)
        try:
            sealed.shake_hands(within_s)
        except Outwaited:
            raise
        except OSError as error:
            self._tell_failure(connection, tell_tls(error))
            raise
        return sealed

    def _tell_failure(self, connection, reason):
        """Logs that TLS with a client has failed, unless that was just done of another."""
        if time.monotonic() < self._quiet_until:
            self._unsaid += 1
            return
        self._quiet_until = time.monotonic() + TLS_QUIET_S
        more, self._unsaid = self._unsaid, 0
        try:
            where = plain_address(connection.getpeername()[0]) or "the UNIX socket"
        except (OSError, IndexError):
            where = "a client that is gone"
        log.warning("TLS with %s failed: %s%s", where, reason,
                    "; %d others before, which were not told" % more if more else "")


class Sealed:
    """A connection by TLS, for the one thread that uses it as it would use the connection. What has
    a time-out takes no longer as a whole. OSError."""

    def __init__(self, connection, ssl, context):
        self._connection, self._ssl, self._timeout_s = connection, ssl, None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def shake_hands(self, within_s):
        """Begins TLS. Outwaited; OSError."""
        self.settimeout(within_s)
        try:
            self._do(self._tls.do_handshake)
        except socket.timeout:
            raise Outwaited("handshake") from None

    @property
    def certificate(self):
        """The common name of the client's certificate, which is verified; "" without one."""
        fields = self._tls.getpeercert() or {}
        names = [value for part in fields.get("subject", ()) for key, value in part
                 if key == "commonName"]
        return names[0] if len(names) == 1 else ""

    def gettimeout(self):
        """Seconds, or None."""
        return self._timeout_s

    def settimeout(self, timeout_s):
        """How long a call may take; None: for ever."""
        self._timeout_s = timeout_s

    def recv(self, size):
        """What comes in; nothing at its end, or where it is cut."""
        try:
            return self._do(self._tls.read, size)
        except (self._ssl.SSLZeroReturnError, self._ssl.SSLEOFError):
            return b""

    def sendall(self, data):
        """Sends data."""
        while data:
            data = data[self._do(self._tls.write, data):]

    def shutdown(self, how):
        """Tells the client that nothing more comes."""
        with contextlib.suppress(OSError, ValueError):
            self._tls.unwrap()                  # the client's own farewell is not waited for
        with contextlib.suppress(OSError):
            self._flush()
        self._connection.shutdown(how)

    def has_hung_up(self):
        """Whether the client has ended the connection; some of what it has sent is taken in."""
        self._connection.settimeout(0.0)
        try:
            while self._incoming.pending < WIRE_PIECE:
                data = self._connection.recv(WIRE_PIECE)
                if not data:
                    self._incoming.write_eof()
                    return True
                self._incoming.write(data)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return False

    def _do(self, step, *arguments):
        """Calls a function of TLS until it needs nothing more of the client -> its value."""
        begun = time.monotonic()
        while True:
            try:
                return step(*arguments)
            except self._ssl.SSLWantReadError:
                pass
            finally:
                self._connection.settimeout(self._timeout_s)
                self._flush()                   # an alert, too
            try:
                data = receive(self._connection, "", self._timeout_s, begun)
            except Outwaited:
                raise socket.timeout("timed out") from None
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()

    def _flush(self):
        """Sends what TLS has to say."""
        if self._outgoing.pending:
            self._connection.sendall(self._outgoing.read())
