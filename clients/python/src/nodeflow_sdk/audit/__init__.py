"""What a suite has promised, checked over a history of what it did.

`history` is the form, `decoding` makes it from the log, `checkers` judge it, `export_file` keeps it. None of them uses
code of the engine: a checker that shares its code shares its mistakes.
"""
