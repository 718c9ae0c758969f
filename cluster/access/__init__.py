"""Who may do what: the rules of policies, the decision about one question, and the gate that every request passes."""
