"""TensorFlow data sets as a source of clips, read at random places by tf.data."""

import os

# TensorFlow only reads and writes records here; that it could calculate faster, and would round
# otherwise, is nothing to tell at every start. It looks when it is first imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
