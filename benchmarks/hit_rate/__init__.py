"""How precise an ORM cache is: hit rate, stale answers and time per page, beside an exact oracle."""
