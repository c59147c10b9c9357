"""How other tools count: one file for each, with its rules in words (`RULES`) and as a function of a record."""
