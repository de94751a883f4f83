"""The local server: to this machine alone, exact tiles on request, and nothing else."""

import http.client
import json
import threading
from urllib.parse import quote

import numpy as np
import pytest

from otoscope.errors import CaptureError, ResultError
from otoscope.reporting.viewer import ViewServer
from tests.reporting.viewing import long_viewing, small_viewing


@pytest.fixture(scope="module")
def server():
    with small_viewing(two=True).serve() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def ask(server, name, method="GET", start=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request(method, (f"/{server.key}/" if start is None else start) + name, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def test_it_listens_on_the_loopback_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.address == f"http://127.0.0.1:{server.server_port}/{server.key}/"


def test_the_page_may_load_nothing_from_elsewhere(server):
    answer, body = ask(server, "")
    assert answer.status == 200
    assert body.startswith(b"<!doctype html>")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["Cache-Control"] == "no-store"
    head, nothing = ask(server, "", "HEAD")
    assert (head.status, nothing) == (200, b"")
    assert int(head.headers["Content-Length"]) == len(body)


def test_blocks_are_those_of_the_scene(server):
    for name, block in small_viewing(two=True).scene.blocks().items():
        answer, body = ask(server, name)
        assert answer.status == 200
        assert body == block(), name


@pytest.mark.parametrize("side", [0, 1])
def test_tiles_are_exact(server, side):
    maps = server.exact[side]
    for layer, head in ((1, 0), (3, 2)):
        answer, body = ask(server, f"m{side}/tile/{layer}.{head}/0/0")
        assert answer.status == 200
        np.testing.assert_array_equal(np.frombuffer(body, "<f4"), maps.layer(layer)[head].ravel())


def test_tiles_of_a_long_map_fit_together():
    viewing = long_viewing()
    with viewing.serve() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            whole = viewing.exact[0].layer(2)[1]
            frames = len(whole)
            assert frames > 512
            rows = []
            for row in range(3):
                high = min(256, frames - 256 * row)
                tiles = [np.frombuffer(ask(server, f"m0/tile/2.1/{row}/{k}")[1], "<f4") for k in range(3)]
                rows.append(np.concatenate([one.reshape(high, -1) for one in tiles], 1))
            np.testing.assert_array_equal(np.concatenate(rows), whole)
            assert ask(server, "m0/tile/2.1/3/0")[0].status == 404
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("host", ["attacker.example", "127.0.0.1", "localhost:1", "127.0.0.1.attacker.example:80"])
def test_another_host_name_is_refused(server, host):
    """A page elsewhere whose name leads here must not read the speech."""
    answer, body = ask(server, "audio", Host=host)
    assert answer.status == 403
    assert len(body) < 200


def test_localhost_is_a_name_of_this_machine(server):
    assert ask(server, "audio", Host=f"localhost:{server.server_port}")[0].status == 200


@pytest.mark.parametrize("start", ["/", "/audio", "/wrong-key/", "/wrong-key/audio", "//", "/%2e%2e/"])
def test_without_the_key_there_is_nothing(server, start):
    assert ask(server, "", start=start)[0].status == 404


@pytest.mark.parametrize(
    "name",
    [
        "nothing", "../audio", "m0", "m0/tile", "m0/tile/1.0/0", "m0/tile/1.0/9/0", "m2/tile/1.0/0/0", "m-1/tile/1.0/0/0",
        "m0/tile/1.9/0/0", "m0/tile/0.0/0/0", "m0/tile/1.0/-1/0", "m0/tile/1.0/0/0/0", "m0/tile/1/0/0", "m0/overview/9",
        "m0/tile/1.0/1e9/0", "m0/tile/1.0/\xb2/0", "m0/tile/4.0/0/0",
    ],
)  # fmt: skip
def test_names_of_no_block_are_told_apart_from_faults(server, name):
    answer, body = ask(server, quote(name))
    assert answer.status == 404
    assert json.loads(body)["problem"]


def test_what_cannot_be_computed_is_told_with_its_cure(server, monkeypatch):
    def fails(layer):
        raise CaptureError("The model has gone", "Bring it back.")

    monkeypatch.setattr(server.exact[0], "layer", fails)
    answer, body = ask(server, "m0/tile/1.0/0/0")
    assert answer.status == 422
    assert json.loads(body) == {"problem": "The model has gone", "cure": "Bring it back."}


def test_other_methods_are_refused(server):
    for method in ("POST", "PUT", "DELETE"):
        assert ask(server, "audio", method)[0].status == 501


@pytest.mark.parametrize("port", ["taken", 99999, -1])
def test_a_port_that_cannot_be_used_is_named(server, port):
    viewing = small_viewing()
    number = server.server_port if port == "taken" else port
    with pytest.raises(ResultError, match=f"cannot listen on port {number}"):
        ViewServer(viewing.scene, viewing.exact, number)
