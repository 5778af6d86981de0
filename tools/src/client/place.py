"""Where the agent is: its port or UNIX socket, by TLS or not."""
import socket

from .errors import ClientError, NO_CONNECTION, USAGE, reason_of

CONNECT_S = 10


def open_socket(options):
    """(A socket that is connected to the agent of these options, what to call that place).
    ClientError."""
    place = options.unix or "%s:%d" % (options.host, options.port)
    context = make_context(options)
    try:
        if options.unix:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(CONNECT_S)
            connection.connect(options.unix)
        else:
            connection = socket.create_connection((options.host, options.port), CONNECT_S)
    except (OSError, ValueError) as error:              # a name that is none is a ValueError
        hint = "; does the agent run? another port is --port or AGENT_PORT" \
            if isinstance(error, ConnectionRefusedError) and not options.unix else ""
        raise ClientError(NO_CONNECTION, "cannot connect to %s: %s%s" % (place, reason_of(error),
                                                                         hint))
    if context is not None:
        try:
            connection = context.wrap_socket(connection, server_hostname=options.host)
        except (OSError, ValueError) as error:          # CertificateError was one before 3.7
            connection.close()
            raise ClientError(NO_CONNECTION, "cannot connect to %s by TLS: %s"
                              % (place, _tell_tls(error)))
    return connection, place


def make_context(options):
    """What verifies the agent by TLS, of module ssl; None: no TLS is wanted. ClientError."""
    if not (options.tls or options.tls_ca or options.tls_cert):
        return None
    if options.unix:
        raise ClientError(USAGE, "--unix goes without --tls: nobody else reads there")
    try:
        import ssl
    except ImportError:
        raise ClientError(USAGE, "--tls: this Python has no TLS (no module ssl)")
    path = options.tls_ca
    try:
        context = ssl.create_default_context(cafile=path)
        if options.tls_cert:
            path = options.tls_cert
            context.load_cert_chain(options.tls_cert, options.tls_key)
    except OSError as error:                            # SSLError is one
        raise ClientError(USAGE, "%s: %s" % (path, reason_of(error)))
    return context


def _tell_tls(error):
    """Why TLS has failed, and what to do."""
    reason = getattr(error, "verify_message", None)
    if getattr(error, "reason", None) == "CERTIFICATE_VERIFY_FAILED":
        return ("its certificate is not valid here: %s (--tls-ca FILE names the authority that has "
                "signed it)" % (reason or reason_of(error)))
    if getattr(error, "reason", None) in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return "what answers there speaks no TLS"
    return reason_of(error)
