"""Where labelled clips are read from: folders, HDF5, and what all sources offer."""
