"""Device IR + Config -> Triton source."""
