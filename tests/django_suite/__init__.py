"""Django's own tests as an oracle: whatever passes without the cache must pass with it."""
