"""Looks for settings: what a file asks for (`spec`), the trials that a search proposes (`search`), how sure the best is
(`results`)."""
