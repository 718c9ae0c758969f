"""CA providers: they hold keys and sign. They know nothing of Raft, HTTP serving or leaders."""
