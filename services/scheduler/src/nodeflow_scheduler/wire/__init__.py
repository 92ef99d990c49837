"""Proto ↔ domain. Translates and decides nothing; one module for each subject."""
