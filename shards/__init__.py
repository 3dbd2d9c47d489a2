"""Pictures to patches to tars: the format in which curation and training meet, and where it is stored."""
