"""Top layers of a pre-trained model begin anew before fine-tuning, as in Pasad, Chou and Livescu (2021)."""
