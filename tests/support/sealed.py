"""Servers with TLS for an agent in the test's own process, and clients that speak it. The fixtures are for the files
that import them."""
import socket
import ssl

import pytest

from conftest import LIMIT_S, Client, program
from support.certificates import Authority, sign_server

AWAY = "127.0.0.2"          # stands for another host


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority):
    return sign_server(authority)


@pytest.fixture
def serve(inside, authority, certificate):
    """Servers of `inside`: serve(stranger_s=1), with the limits of WireLimits; or has_tls=False."""
    servers = []

    def make(has_tls=True, **limits):
        certificates = None
        if has_tls:
            certificates = program.Certificates(str(certificate), None, str(authority.path), inside.clock)
        servers.append(program.Server(inside.agent, "127.0.0.1", 0, program.WireLimits(**limits), None, certificates))
        servers[-1].listen()
        return servers[-1]
    yield make
    for server in servers:
        server.close()


@pytest.fixture
def away(monkeypatch):
    """Connections from AWAY count as from another host."""
    is_loopback = program.is_loopback
    monkeypatch.setattr(program, "is_loopback", lambda address: address != AWAY and is_loopback(address))


class SealedClient(Client):
    """A connection by TLS, from an address of this host."""

    def __init__(self, port, authority, certificate=None, source="127.0.0.1", host="127.0.0.1"):
        context = ssl.create_default_context(cafile=str(authority.path))
        if certificate:
            context.load_cert_chain(str(certificate))
        plain = socket.create_connection((host, port), LIMIT_S, (source, 0))
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        self._file = self.socket.makefile("rb")


def plain_client(port, source, host="127.0.0.1"):
    """A connection without TLS, from an address of this host."""
    client = Client.__new__(Client)
    client.socket = socket.create_connection((host, port), LIMIT_S, (source, 0))
    client._file = client.socket.makefile("rb")
    return client
