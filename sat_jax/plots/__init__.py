"""Pictures of recordings and evaluations. Only this folder imports matplotlib."""
