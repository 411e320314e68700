"""The commands: a file for each verb. What takes time to import is imported by the verbs that need it."""
