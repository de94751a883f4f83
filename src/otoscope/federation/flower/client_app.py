"""The client app: draws its sub-model, trains it on its own speech, and sends back by how much it changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from otoscope.errors import FederationError, OtoscopeError
from otoscope.federation.channels import exchanged, groups_of, variables_of
from otoscope.federation.client import Client, LocalSettings
from otoscope.federation.drawing import Drawing
from otoscope.federation.encoding import encode
from otoscope.federation.flower.messages import facts_content, read_orders, replies_content
from otoscope.federation.partition import Share
from otoscope.federation.server import Reply, fingerprint
from otoscope.federation.settings import of_plain
from otoscope.models.recogniser import Recogniser


class Node:
    """The clients of one machine or process.

    Args:
        template: a model of the server's kind; of its weights nothing is used.
        shares: each client's speech.
    """

    def __init__(self, template: Recogniser, shares: Sequence[Share]) -> None:
        self._template, self._shares = template, {share.client: share for share in shares}
        self._groups, self._variables = groups_of(template.model), variables_of(template.model)
        self._clients: dict[tuple[str, str], Client] = {}

    def hello(self) -> dict[str, Any]:
        """Who is here, and with what model and speech, as plain values."""
        return {
            "model": kind_of(self._template),
            "clients": {
                name: {"speech": share.utterances.fingerprint(), "utterances": len(share.utterances)}
                for name, share in self._shares.items()
            },
        }

    def train(self, order: Mapping[str, Any], arrays: Mapping[str, torch.Tensor], terms: Mapping[str, Any]) -> Reply:
        """Trains one client for a round.

        Args:
            order: client, round and seed.
            arrays: what travelled.
            terms: of the training, see `strategy.terms_of`.

        Raises:
            OtoscopeError: there is no such client here, the tensors are others than those of its sub-model, or its
                training fails.
        """
        name, round, seed = str(order["client"]), int(order["round"]), int(order["seed"])
        drawing: Drawing = of_plain(Drawing, terms["drawing"])
        submodel = drawing.submodel(self._groups, terms["rates"], round, name, self._variables)
        trained = self._client(name, terms["local"]).train(arrays, submodel, round, seed)
        delta = encode(trained.delta, str(terms["dtype"]))
        return Reply(name, round, seed, fingerprint(submodel), delta, trained.weight, trained.metrics)

    def _client(self, name: str, local: Mapping[str, Any]) -> Client:
        """A client, made once for the same settings."""
        if name not in self._shares:
            raise FederationError(f"There is no client {name!r} here", f"Here are: {', '.join(self._shares)}.")
        key = (name, json.dumps(local, sort_keys=True))
        if key not in self._clients:
            self._clients[key] = Client(self._template, self._shares[name], of_plain(LocalSettings, local))
        return self._clients[key]


def make_client_app(find: Callable[[Context], Node]) -> ClientApp:
    """The app that every runner uses.

    A client that fails is told of by name with its reason, and does not take others of the same node with it.

    Args:
        find: gives the clients of the node that a message came to.
    """
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        return Message(facts_content(find(context).hello()), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        node, (orders, terms) = find(context), read_orders(message)
        replies: list[Reply] = []
        failures: dict[str, str] = {}
        for order, arrays in orders:
            try:
                replies.append(node.train(order, arrays, terms))
            except OtoscopeError as error:
                failures[str(order["client"])] = error.problem
            except Exception as error:  # whatever a client's machine does to it
                failures[str(order["client"])] = f"{type(error).__name__}: {error}"
        return Message(replies_content(replies, failures), reply_to=message)

    return app


def kind_of(recogniser: Recogniser) -> str:
    """A hash of what server and clients must agree on: tensors, their shapes, and the vocabulary."""
    shapes = [[name, list(value.shape)] for name, value in exchanged(recogniser.model).items()]
    told = json.dumps([shapes, list(recogniser.vocabulary.tokens)])
    return hashlib.sha256(told.encode()).hexdigest()
