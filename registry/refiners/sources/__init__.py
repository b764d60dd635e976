"""Opens the sources of files: packages, the Hub, folders, files of a user."""
