"""Surgery on trees: select places, plan edits, inject and eject adapters."""
