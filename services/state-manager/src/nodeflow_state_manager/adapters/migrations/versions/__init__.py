"""One file per revision, named for what it brings; a released one is never changed."""
