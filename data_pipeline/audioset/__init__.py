"""AudioSet as a TFDS dataset: python -m data_pipeline.audioset --help."""
