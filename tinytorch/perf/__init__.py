"""Optimisations that can be switched on, compared with their plain counterparts, and audited."""
