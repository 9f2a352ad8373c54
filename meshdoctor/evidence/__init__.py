"""What each source answered, decoded into frozen typed facts; no input or output here."""
