"""Tools that a model may call in a direct turn: definitions, and the runner that carries calls out in a workspace."""
