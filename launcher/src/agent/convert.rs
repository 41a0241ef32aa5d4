//! From what the agent tells to what is shown.
