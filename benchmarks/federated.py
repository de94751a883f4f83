"""What rounds through Flower's objects cost in this process, against a plain loop over the same clients; and what travels."""

import tempfile
import time
from pathlib import Path

import torch
from transformers import Wav2Vec2ConformerConfig, Wav2Vec2ConformerModel, Wav2Vec2Model

from benchmarks.material import labelled_noise
from otoscope.federation.channels import groups_of
from otoscope.federation.client import Client, LocalSettings
from otoscope.federation.encoding import sizes
from otoscope.federation.flower.inline import run_local
from otoscope.federation.partition import partition
from otoscope.federation.schedules import uniform
from otoscope.federation.server import Reply, Server, fingerprint
from otoscope.federation.settings import FederationSettings
from otoscope.federation.submodels import full
from otoscope.models import load
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser
from otoscope.models.vocabulary import Vocabulary
from otoscope.speech.corpus import Corpus
from otoscope.training.architectures import Size, make_config
from otoscope.training.ctc_head import with_ctc_head

LIMIT, BYTES_LIMIT, ROUNDS = 1.3, 0.52, 4
VOCABULARY = Vocabulary(("<pad>", "|", "a", "b", "c", "d"), 0)
SIZE = Size()


def recogniser(encoder) -> Recogniser:
    """An encoder of random weights with a CTC head."""
    model = load(encoder, name="random")
    made = with_ctc_head(model, VOCABULARY, 0)
    return Recogniser(SpeechModel(made, model.family, model.frontend, model.name), VOCABULARY)


def speech() -> Corpus:
    """Noise that is said to spell, by four speakers."""
    noise = labelled_noise(12, 2.0, 4)
    return Corpus.from_arrays(
        [one.read() for one in noise], speakers=[one.speaker for one in noise], transcripts=["ab cd"] * len(noise)
    )


def plain_loop(made: Recogniser, shares, rates, settings: FederationSettings) -> dict[str, torch.Tensor]:
    """The same training, without messages, files or checks of Flower's."""
    server = Server(made.model, [share.client for share in shares], rates, settings)
    clients = {share.client: Client(made, share, settings.local) for share in shares}
    for round in range(1, settings.rounds + 1):
        replies = []
        for order in server.orders(round):
            found = clients[order.client].train(order.arrays, order.submodel, round, order.seed)
            mark = fingerprint(order.submodel)
            replies.append(Reply(order.client, round, order.seed, mark, found.delta, found.weight, found.metrics))
        server.receive(round, replies)
    return server.state


def times(made: Recogniser, shares, rates, settings: FederationSettings) -> tuple[float, float]:
    """CPU seconds of the rounds in a plain loop and through Flower's objects, the latter with its states on disk."""
    began = time.process_time()
    plain_loop(made, shares, rates, settings)
    middle = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run_local(made, shares, rates, settings, folder=Path(folder) / "run")
    return middle - began, time.process_time() - middle


def main() -> bool:
    """Prints ratios of CPU time and of bytes, on one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    made = recogniser(Wav2Vec2Model(make_config("wav2vec2", SIZE)))
    shares = partition(speech(), "speaker")
    settings = FederationSettings(rounds=ROUNDS, local=LocalSettings(epochs=2, batch_seconds=4.0))
    rates = uniform(groups_of(made.model), 0.5)
    times(made, shares, rates, FederationSettings(rounds=1, local=settings.local))  # warms up
    plain, flower = times(made, shares, rates, settings)
    ratio = flower / plain
    print(
        f"{ROUNDS} rounds of {len(shares)} clients in a plain loop: {plain:.1f} CPU s; through Flower: {flower:.1f} CPU s"
    )
    print(f"ratio {ratio:.2f} (limit {LIMIT}), model of {made.parameters / 1e6:.1f} million parameters, one thread")
    config = Wav2Vec2ConformerConfig(hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=256)
    shares_sent = [sent_share(one) for one in (made, recogniser(Wav2Vec2ConformerModel(config)))]
    print(
        "at rate 0.5 of all units travels, of the bytes of what can be dropped: "
        + ", ".join(f"{share:.3f} ({name})" for share, name in zip(shares_sent, ("wav2vec2", "Conformer"), strict=True))
        + f" (limit {BYTES_LIMIT})"
    )
    return ratio <= LIMIT and max(shares_sent) <= BYTES_LIMIT


def sent_share(made: Recogniser) -> float:
    """Bytes that a client is sent of what can be dropped, over all bytes of that."""
    server = Server(made.model, ["client"], uniform(groups_of(made.model), 0.5))
    droppable = 4 * sum(group.elements for group in server.groups.values())
    fixed = sizes(made.model, full()).download_bytes - droppable
    held = sizes(made.model, server.submodels(1)["client"])
    return (held.download_bytes - fixed) / droppable


if __name__ == "__main__":
    raise SystemExit(not main())
