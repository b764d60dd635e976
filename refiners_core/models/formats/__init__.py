"""Published formats of base models: folders, single files, live pipelines."""
