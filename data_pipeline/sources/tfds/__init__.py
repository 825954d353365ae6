"""Prepared TensorFlow datasets (TFDS) as a source of clips."""

import os

# TensorFlow reads this when it is first imported. It only reads records here, so its notices about
# faster arithmetic are silenced.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
