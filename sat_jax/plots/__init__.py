"""Pictures of recordings and evaluations; matplotlib is imported only here."""
