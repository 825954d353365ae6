"""Sources of labelled clips: sound files, HDF5 files, TensorFlow datasets."""
