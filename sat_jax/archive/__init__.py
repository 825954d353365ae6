"""Tags archives of recordings with Apache Beam, on one machine or many."""
