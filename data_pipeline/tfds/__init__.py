"""TensorFlow data sets as a source of clips, read at random places by tf.data."""
