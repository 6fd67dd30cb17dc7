"""What travels between the rooms and what each promises: batches, backbones, catalogues, examples, errors."""
