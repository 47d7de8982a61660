"""Who may say what about the federation: TUF metadata under threshold signatures, as signed bundles."""
