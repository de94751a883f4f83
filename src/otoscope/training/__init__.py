"""Trains small models: self-supervised pre-training and CTC fine-tuning, through transformers' Trainer."""
