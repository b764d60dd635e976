"""Sources of files: packages, the Hub, folders, files of a user."""
