"""Federated training: clients train parts of a model, drawn at rates that a diagnosis can aim."""
