"""How the bundled model was made: scenes, training, results. Not part of the package."""
