"""Looks for settings: what a file asks for (`spec`), the rounds that a search proposes (`search`), one trial of it
(`trial`), how sure the best is (`results`)."""
