"""SuperLink and SuperNodes on loopback; what can be tested without them is tested without."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time

import psutil
import pytest
import torch
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key
from flwr.app import Context, Message, RecordDict

from otoscope.errors import FederationError
from otoscope.federation.channels import exchanged, groups_of
from otoscope.federation.client import LocalSettings
from otoscope.federation.flower.apps import node_of, serve, tell_failed
from otoscope.federation.flower.client_app import make_client_app
from otoscope.federation.flower.credentials import make_certificates, make_node_key
from otoscope.federation.flower.deploy import Deployment, run_deploy
from otoscope.federation.flower.inline import InlineGrid, run_local
from otoscope.federation.flower.processes import Processes, free_ports, listens, told_json
from otoscope.federation.partition import partition
from otoscope.federation.result import FederationResult
from otoscope.federation.running import alone, put_recogniser
from otoscope.federation.schedules import uniform
from otoscope.federation.settings import FederationSettings
from otoscope.models.recogniser import load_recogniser
from otoscope.speech import read_corpus, write_corpus
from tests.federation.small import SPEAKERS, speech, wav2vec2

LOCAL = LocalSettings(steps=1)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with speech and a model."""
    folder = tmp_path_factory.mktemp("machine")
    write_corpus(speech(8), folder / "speech", format="wav")
    put_recogniser(wav2vec2(), folder / "model")
    return folder


def config(place, **other):
    return json.dumps({"model": str(place / "model"), "corpus": str(place / "speech"), **other})


def clients(node):
    return list(node.hello()["clients"])


def test_a_node_holds_its_part_of_the_speech_on_its_machine(place, tmp_path):
    assert clients(node_of(config(place))) == list(SPEAKERS)
    parts = [node_of(config(place, **{"partition-id": k, "num-partitions": 2})) for k in range(2)]
    assert [clients(node) for node in parts] == [["s0", "s2"], ["s1", "s3"]]
    assert clients(node_of(config(place, clients="speaker:2", seed=3))) == ["client.1", "client.2"]
    (tmp_path / "shares.json").write_text(json.dumps({"b": ["0001"], "a": ["0000", "0002"]}))
    ids = [one.id for one in read_corpus(place / "speech")]
    (tmp_path / "shares.json").write_text(json.dumps({"b": ids[1:2], "a": ids[:1] + ids[2:3]}))
    told = node_of(config(place, shares=str(tmp_path / "shares.json"))).hello()["clients"]
    assert {name: facts["utterances"] for name, facts in told.items()} == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"partition-id": 4, "num-partitions": 9}, "gives 4 clients, too few for 9 SuperNodes"),
        ({"partition-id": 2, "num-partitions": 2}, "no partition 2 of 2"),
        ({"clients": "speaker:9"}, r"too few speakers \(4\) for 9 clients"),
        ({"shares": "/none.json"}, "cannot be read"),
    ],
)
def test_a_node_that_cannot_hold_its_part_says_so(place, other, match):
    with pytest.raises(FederationError, match=match):
        node_of(config(place, **other))


def test_a_node_must_be_told_where_its_model_and_speech_are(place, tmp_path):
    with pytest.raises(FederationError, match="names no corpus"):
        node_of(json.dumps({"model": str(place / "model")}))
    (tmp_path / "shares.json").write_text(json.dumps({"a": ["nobody"]}))
    with pytest.raises(FederationError, match="no utterance 'nobody'"):
        node_of(config(place, shares=str(tmp_path / "shares.json")))


def job(folder, place, **other):
    settings = FederationSettings(rounds=1, local=LOCAL)
    told = {
        "model": str(place / "model"), "name": "tiny", "settings": settings.to_dict(), "rates": {}, "nodes": 2, "wait": 0.2,
        "resume": False, "held_out": {"corpus": str(place / "speech"), "ids": [read_corpus(place / "speech")[0].id]},
        "asked": {"schedule": "full"},
    }  # fmt: skip
    (folder / "flower").mkdir(parents=True)
    (folder / "flower" / "job.json").write_text(json.dumps(told | other))


def test_the_server_app_trains_the_job_of_its_folder(place, tmp_path):
    job(tmp_path, place)
    nodes = [node_of(config(place, **{"partition-id": k, "num-partitions": 2})) for k in range(2)]
    result = serve(InlineGrid(make_client_app(lambda context: nodes[context.node_id - 1]), 2), tmp_path)
    assert FederationResult.load(tmp_path) == result
    assert (result.status, result.runner, result.rows[0].clients) == ("completed", "deploy", SPEAKERS)
    assert set(result.last) == {"wer", "cer"}
    assert result.asked == {"schedule": "full"}


def test_the_server_app_waits_no_longer_than_it_was_told(place, tmp_path):
    def never(message: Message, context: Context) -> Message:
        return Message(RecordDict(), reply_to=message)

    job(tmp_path, place, nodes=3)
    with pytest.raises(FederationError, match="3 SuperNodes did not come in 0.2 s") as caught:
        serve(InlineGrid(never, 2), tmp_path)
    tell_failed(tmp_path, caught.value)
    assert "did not come" in FederationResult.load(tmp_path).reason


def test_a_failure_is_told_once_and_no_end_is_untold(tmp_path):
    FederationResult("tiny", (), "deploy", {}, {}).ended().save(tmp_path)
    tell_failed(tmp_path, RuntimeError("later"))
    assert FederationResult.load(tmp_path).status == "completed"


def test_a_port_in_use_is_named_before_anything_starts(place, tmp_path):
    corpus = read_corpus(place / "speech")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        assert listens(port)
        with pytest.raises(FederationError, match=f"Port {port} of 127.0.0.1 cannot be listened on"):
            run_deploy(
                wav2vec2(), partition(corpus, "speaker"), {}, folder=tmp_path / "run", corpus=str(place / "speech"),
                deployment=Deployment(port=port - 1),
            )  # fmt: skip
    assert not (tmp_path / "run").exists()
    assert not listens(port)


def test_a_deployment_that_cannot_be_leaves_no_folder_and_one_under_way_its_files(place, tmp_path):
    shares, folder = partition(read_corpus(place / "speech"), "speaker"), tmp_path / "run"

    def deploy(nodes):
        run_deploy(
            wav2vec2(), shares, {}, folder=folder, corpus=str(place / "speech"), deployment=Deployment(nodes=nodes)
        )

    with pytest.raises(FederationError, match="4 clients for 5 SuperNodes"):
        deploy(5)
    assert not folder.exists()
    (folder / "flower").mkdir(parents=True)
    (folder / "flower" / "node-0.log").write_text("at work")
    with alone(folder), pytest.raises(FederationError, match="Another process trains"):
        deploy(2)
    assert (folder / "flower" / "node-0.log").exists()


def test_free_ports_are_free_and_follow_one_another():
    found = free_ports(0, 3)
    assert len(set(found)) == 3
    assert free_ports(min(found), 1) == [min(found)]
    with pytest.raises(FederationError, match="Port 70000"):
        free_ports(70000, 1)


def test_json_is_found_behind_what_a_command_says():
    assert told_json('Loading\n{"success": true}\n') == {"success": True}
    assert told_json("no such thing") == told_json("{half") == {}


def test_processes_end_with_all_that_they_started(tmp_path):
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "print(child.pid, flush=True)\ntime.sleep(600)\n"
    )
    found = []

    def interrupted():
        with Processes(tmp_path) as processes:
            processes.start("parent", sys.executable, "-c", script)
            while not processes.log("parent").read_text().endswith("\n"):
                time.sleep(0.05)
            child = psutil.Process(int(processes.log("parent").read_text()))
            found.extend([child, child.parents()[0]])
            processes.check()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(found) == 2
    assert not [one for one in found if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_a_process_that_ends_early_is_told_of_with_its_last_line(tmp_path):
    with Processes(tmp_path) as processes:
        processes.start("node-0", sys.executable, "-c", "print('first'); print('no room'); raise SystemExit(3)")
        while psutil.Process().children()[-1].status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.05)
        with pytest.raises(FederationError, match="The node-0 ended with exit status 3: no room"):
            processes.check()
        with pytest.raises(FederationError, match="cannot be started"):
            processes.start("node-1", "no-such-command-anywhere")


def test_a_command_that_fails_says_why(tmp_path):
    with Processes(tmp_path) as processes:
        assert processes.call(sys.executable, "-c", "print(1)") == "1\n"
        with pytest.raises(FederationError, match="failed: broken"):
            processes.call(sys.executable, "-c", "import sys; sys.exit('broken')")
        with pytest.raises(FederationError, match="failed: no app"):
            processes.call(sys.executable, "-c", """print('{"success": false, "error-message": "no app"}')""")


def test_processes_of_flower_neither_call_home_nor_write_there(tmp_path):
    with Processes(tmp_path) as processes:
        told = json.loads(processes.call(sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"))
    assert told["FLWR_TELEMETRY_ENABLED"] == "0"
    assert told["FLWR_DISABLE_UPDATE_CHECK"] == told["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert told["FLWR_HOME"] == str(tmp_path / "home")


def test_sigterm_ends_processes_too(tmp_path):
    def terminated():
        with Processes(tmp_path) as processes:
            processes.start("parent", sys.executable, "-c", "import time; time.sleep(600)")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        terminated()
    assert not [one for one in psutil.Process().children() if "time.sleep(600)" in " ".join(one.cmdline())]
    assert signal.getsignal(signal.SIGTERM) == before


def test_certificates_are_for_their_host_and_keys_are_secret(tmp_path):
    made = make_certificates(tmp_path / "certificates", "10.0.0.7")
    authority, own = (x509.load_pem_x509_certificate(path.read_bytes()) for path in (made.authority, made.certificate))
    own.verify_directly_issued_by(authority)
    names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7"]
    key = make_node_key(tmp_path / "keys", "node-0")
    private = load_ssh_private_key(key.read_bytes(), None)
    assert load_ssh_public_key(key.with_suffix(".pub").read_bytes()) == private.public_key()
    for secret in (made.key, key):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    named = x509.load_pem_x509_certificate(make_certificates(tmp_path / "other", "hub.lab").certificate.read_bytes())
    names = named.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["hub.lab"]


def flower_processes():
    """Command lines of this user's processes of Flower."""
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted(one for one in found if "flower-super" in one or "flwr-clientapp" in one or "flwr-serverapp" in one)


@pytest.mark.slow
def test_two_supernodes_with_tls_and_keys_train_what_one_process_does(place, tmp_path):
    corpus, recogniser, before = read_corpus(place / "speech"), wav2vec2(), flower_processes()
    shares, rates = partition(corpus, "speaker"), uniform(groups_of(recogniser.model), 0.5)
    settings = FederationSettings(rounds=2, local=LOCAL)
    rows = []
    expected = run_local(recogniser, shares, rates, settings, folder=tmp_path / "local", held_out=corpus.utterances[:2])
    found = run_deploy(
        recogniser, shares, rates, settings, folder=tmp_path / "deploy", corpus=str(place / "speech"),
        held_out=corpus.utterances[:2], deployment=Deployment(secure=True, wait=300),
        report=lambda result, row: rows.append(row.round),
    )  # fmt: skip
    one, other = (exchanged(load_recogniser(tmp_path / name).model) for name in ("local", "deploy"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [row.held_out for row in found.rows] == [row.held_out for row in expected.rows]
    assert (found.status, rows) == ("completed", [1, 2])
    assert flower_processes() == before


@pytest.mark.slow
def test_a_deployment_whose_clients_all_fail_fails(place, tmp_path):
    corpus, before = read_corpus(place / "speech"), flower_processes()
    settings = FederationSettings(rounds=1, local=LocalSettings(epochs=2, learning_rate=1e30))
    with pytest.raises(FederationError, match="4 of 4 clients failed .*diverged"):
        run_deploy(
            wav2vec2(), partition(corpus, "speaker"), {}, settings, folder=tmp_path, corpus=str(place / "speech"),
            deployment=Deployment(wait=300),
        )  # fmt: skip
    assert FederationResult.load(tmp_path).status == "failed"
    assert flower_processes() == before
