"""The TLS layers without a socket, each against the standard library's own client side."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from pop3d.net.certificates import create_self_signed
from pop3d.net.tls import Bindings, Layer, ServerTls, server_context, server_tls

Make = Callable[..., ServerTls]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return create_self_signed(["localhost"], tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=["ssl", "pyOpenSSL"])
def tls(request: pytest.FixtureRequest) -> Make:
    if request.param == "ssl":
        return server_tls
    return pytest.importorskip(
        "pop3d.net.tls_exporter", reason="pyOpenSSL is missing: the extra channel-binding"
    ).exporter_tls


class Client:
    """An `ssl.SSLObject` with its two pipes."""

    def __init__(self, context: ssl.SSLContext, name: str = "localhost", session: ssl.SSLSession | None = None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name, session=session)

    def handshake(self) -> bool:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def read_all(self) -> bytes:
        pieces = []
        try:
            while data := self.tls.read(65536):
                pieces.append(data)
        except ssl.SSLWantReadError:
            pass
        return b"".join(pieces)


def client_context(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


def connect(layer: Layer, client: Client, chop: int = 1 << 20) -> None:
    for _ in range(10):
        done = client.handshake()
        sent = client.outgoing.read()
        for at in range(0, len(sent), chop):
            layer.receive(sent[at : at + chop])
            layer.handshake()
            client.incoming.write(layer.take_output())
        if done and layer.established:
            return
    raise AssertionError("no handshake")


@pytest.mark.parametrize("chop", [1, 7, 1 << 20])
def test_carries_octets_both_ways(files: tuple[Path, Path], tls: Make, chop: int) -> None:
    layer, client = tls(*files).layer(), Client(client_context(files[0]))
    connect(layer, client, chop)
    assert layer.version == "TLSv1.3"
    client.tls.write(b"CAPA\r\n" * 5000)
    received = b""
    sent = client.outgoing.read()
    for at in range(0, len(sent), max(chop, 100)):
        layer.receive(sent[at : at + max(chop, 100)])
        received += layer.read()
    assert received == b"CAPA\r\n" * 5000
    big = bytes(range(256)) * 1000
    layer.write(big)
    client.incoming.write(layer.take_output())
    assert client.read_all() == big


def test_a_layer_that_never_saw_an_octet_says_nothing(files: tuple[Path, Path], tls: Make) -> None:
    layer = tls(*files).layer()
    assert not layer.handshake()
    assert (layer.version, layer.cipher, layer.peer_certificate, layer.bindings) == ("", "", None, Bindings())
    layer.shut_down()
    assert not layer.has_output
    assert layer.take_output() == b""


def test_what_comes_behind_the_handshake_in_one_segment_is_read(files: tuple[Path, Path], tls: Make) -> None:
    layer, client = tls(*files).layer(), Client(client_context(files[0]))
    client.handshake()
    layer.receive(client.outgoing.read())
    layer.handshake()
    client.incoming.write(layer.take_output())
    assert client.handshake()
    client.tls.write(b"QUIT\r\n")
    layer.receive(client.outgoing.read())  # Finished and QUIT together
    assert layer.handshake()
    assert layer.read() == b"QUIT\r\n"


def test_the_peers_farewell_is_the_end(files: tuple[Path, Path], tls: Make) -> None:
    layer, client = tls(*files).layer(), Client(client_context(files[0]))
    connect(layer, client)
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    layer.receive(client.outgoing.read())
    assert layer.read() == b""
    assert layer.ended


def test_our_farewell_reaches_the_peer(files: tuple[Path, Path], tls: Make) -> None:
    layer, client = tls(*files).layer(), Client(client_context(files[0]))
    connect(layer, client)
    layer.write(b"+OK bye\r\n")
    layer.shut_down()
    client.incoming.write(layer.take_output())
    assert client.tls.read(100) == b"+OK bye\r\n"
    assert client.tls.read(100) == b""


def test_nonsense_is_an_error_with_an_alert(files: tuple[Path, Path], tls: Make) -> None:
    layer = tls(*files).layer()
    layer.receive(b"USER alice\r\nPASS secret\r\n")
    with pytest.raises(ssl.SSLError):
        layer.handshake()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_versions_are_refused(files: tuple[Path, Path], tls: Make, version: ssl.TLSVersion) -> None:
    context = client_context(files[0])
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    layer, client = tls(*files).layer(), Client(context)
    with pytest.raises(ssl.SSLError):
        connect(layer, client)


def test_tls_1_2_has_forward_secrecy_and_aead_only(files: tuple[Path, Path], tls: Make) -> None:
    context = server_context(*files)
    names = [cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.2"]
    assert names
    assert all("ECDHE" in name and ("GCM" in name or "CHACHA20" in name) for name in names)
    client = client_context(files[0])
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    layer = tls(*files).layer()
    connect(layer, Client(client))
    assert layer.version == "TLSv1.2"


@pytest.mark.parametrize("ciphers", ["ECDHE+AES:!AESGCM:!AESCCM", "kRSA", "DHE"])
def test_tls_1_2_without_forward_secrecy_or_aead_is_refused(files: tuple[Path, Path], tls: Make, ciphers: str) -> None:
    context = client_context(files[0])
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    with pytest.raises(ssl.SSLError):
        connect(tls(*files).layer(), Client(context))


def test_the_end_without_a_farewell_is_a_fault(files: tuple[Path, Path], tls: Make) -> None:
    layer, client = tls(*files).layer(), Client(client_context(files[0]))
    connect(layer, client)
    layer.receive(b"")
    with pytest.raises(ssl.SSLError):
        layer.read()
    assert not layer.ended


def test_only_tls_1_3_when_asked(files: tuple[Path, Path], tls: Make) -> None:
    client = client_context(files[0])
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    layer = tls(*files, "1.3").layer()
    with pytest.raises(ssl.SSLError):
        connect(layer, Client(client))


def test_no_client_certificate_is_asked_for(files: tuple[Path, Path]) -> None:
    # RFC 8314 §4.2: nobody could be let in by one
    assert server_context(*files).verify_mode is ssl.CERT_NONE
