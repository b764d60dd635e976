"""Surgery on trees: select places, plan edits, wear and take off adapters."""
